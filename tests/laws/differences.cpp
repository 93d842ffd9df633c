#include "laws/differences.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace sennit::laws {

std::string compare_gradient(const std::string& name, const Tensor& gradient, naive::Matrix& place,
                             const std::function<double()>& loss, Rng rng) {
  constexpr double kAllowed = 1e-3;
  double size = 0, most = 0;
  for (const float g : gradient.span()) size += double{g} * g, most = std::max(most, std::fabs(double{g}));
  size = std::sqrt(size) + 1e-6;
  const auto along = [&](const std::function<double(int64_t)>& u, double h) {
    const std::vector<double> before = place.a;
    double side[2];
    for (const int s : {0, 1}) {
      for (size_t i = 0; i < before.size(); ++i) place.a[i] = before[i] + (s ? h : -h) * u(static_cast<int64_t>(i));
      side[s] = loss();
    }
    place.a = before;
    return (side[1] - side[0]) / (2 * h);
  };
  const Rng direction = rng.fork("direction");
  const auto normal = [&](int64_t i) { return direction.normal_at(static_cast<uint64_t>(i)); };
  double dot = 0;
  for (int64_t i = 0; i < gradient.elements(); ++i) dot += normal(i) * gradient.data()[i];
  const double slope = along(normal, 1e-6);
  if (!(std::fabs(slope - dot) <= kAllowed * size))
    return fmt::format("gradient of {}: {} along a direction, differences give {} (size {})", name, dot, slope, size);
  for (int trial = 0; trial < 3; ++trial) {
    const int64_t at = rng.below(gradient.elements());
    const double one = along([&](int64_t i) { return i == at ? 1.0 : 0.0; }, 1e-5);
    if (!(std::fabs(one - gradient.data()[at]) <= kAllowed * (most + 1e-3 * size + 1e-6)))
      return fmt::format("gradient of {} at {}: {}, differences give {}", name, at, gradient.data()[at], one);
  }
  return "";
}

}  // namespace sennit::laws
