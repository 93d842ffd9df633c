#include "sequence/rope_scaling.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace sennit {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

double stretched_base(int64_t dims, double base, const RopeScaling& s) {
  if (s.kind != "dynamic" || s.length <= s.original) return base;
  const double stretch = s.factor * static_cast<double>(s.length) / static_cast<double>(s.original) - (s.factor - 1);
  return base * std::pow(stretch, static_cast<double>(dims) / static_cast<double>(dims - 2));
}

// The share of pair i that stays as it is: 1 for fast pairs, 0 for slow ones, a ramp over the pairs between.
double yarn_share(int64_t i, int64_t dims, double base, const RopeScaling& s) {
  const auto pair_of = [&](double turns) {
    return static_cast<double>(dims) * std::log(static_cast<double>(s.original) / (turns * kTurn)) /
           (2 * std::log(base));
  };
  const double first = std::max(std::floor(pair_of(s.high)), 0.0);
  const double last = std::min(std::ceil(pair_of(s.low)), static_cast<double>(dims - 1));
  const double width = last == first ? 0.001 : last - first;
  return 1 - std::clamp((static_cast<double>(i) - first) / width, 0.0, 1.0);
}

double llama3_share(double frequency, const RopeScaling& s) {
  const double turns = static_cast<double>(s.original) * frequency / kTurn;
  if (turns < s.low) return 0;
  if (turns > s.high) return 1;
  return (turns - s.low) / (s.high - s.low);
}

}  // namespace

std::vector<double> rope_frequencies(int64_t dims, double base, const RopeScaling& s) {
  const double stretched = stretched_base(dims, base, s);
  const std::vector<double>& factors = s.length > s.original ? s.long_factors : s.short_factors;
  std::vector<double> all;
  for (int64_t i = 0; i < dims / 2; ++i) {
    double f = std::pow(stretched, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
    if (s.kind == "linear") f /= s.factor;
    if (s.kind == "yarn" || s.kind == "llama3") {
      const double share = s.kind == "yarn" ? yarn_share(i, dims, base, s) : llama3_share(f, s);
      f = share * f + (1 - share) * f / s.factor;
    }
    if (s.kind == "longrope") {
      SENNIT_CHECK(std::ssize(factors) == dims / 2, "{} factors for {} pairs", factors.size(), dims / 2);
      f /= factors[i];
    }
    all.push_back(f);
  }
  return all;
}

double rope_magnitude(const RopeScaling& s) {
  if (s.attention > 0) return s.attention;
  if (s.kind == "yarn" && s.factor > 1) return 0.1 * std::log(s.factor) + 1;
  if (s.kind == "longrope" && s.factor > 1)
    return std::sqrt(1 + std::log(s.factor) / std::log(static_cast<double>(s.original)));
  return 1;
}

}  // namespace sennit
