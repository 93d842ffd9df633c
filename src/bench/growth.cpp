#include "bench/growth.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "bench/cases.h"
#include "bench/ceilings.h"
#include "mixers/mixer.h"
#include "tensor/allocator.h"

namespace sennit::bench {
namespace {

const char* const kExact = "softmax";
constexpr int64_t kMostFirstFlops = 500'000'000'000;  // of the shortest length: a cubic cost would take minutes

struct Measured {
  Growth growth;
  std::unique_ptr<Mixer> mixer;
  Pattern pattern;
  std::vector<double> times;  // at the present length
  int64_t peak = 0;
  bool ended = false;
};

// The slope of log y over log x by least squares.
double exponent(const std::vector<std::pair<double, double>>& points) {
  double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (const auto& [x, y] : points) {
    const double a = std::log(x), b = std::log(y);
    n += 1, sx += a, sy += b, sxx += a * a, sxy += a * b;
  }
  return n < 2 ? 0 : (n * sxy - sx * sy) / (n * sxx - sx * sx);
}

void set_exponents(Growth& g, const Mixer& mixer) {
  std::vector<std::pair<double, double>> times, operations;
  const size_t longer = std::min(g.points.size() / 2, g.points.size() - std::min<size_t>(2, g.points.size()));
  for (size_t i = longer; i < g.points.size(); ++i) {
    const auto n = static_cast<double>(g.points[i].length);
    times.push_back({n, g.points[i].seconds});
    const auto flops = static_cast<double>(mixer.flops(g.points[i].length));
    if (flops > 0) operations.push_back({n, flops});
  }
  g.measured = exponent(times);
  g.declared = exponent(operations);
}

// Where the two curves meet, straight between their points on logarithmic axes.
double crossover(const Growth& g, const Growth& exact) {
  double before = 0, length = 0;
  for (size_t i = 0; i < std::min(g.points.size(), exact.points.size()); ++i) {
    const double ratio = std::log(g.points[i].seconds / exact.points[i].seconds),
                 n = static_cast<double>(g.points[i].length);
    if (ratio < 0) return i == 0 ? 0 : std::exp(std::log(length) + before / (before - ratio) * std::log(n / length));
    before = ratio, length = n;
  }
  return std::numeric_limits<double>::infinity();
}

void pass(Measured& m, const Tensor& x) {
  NoGrad off;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  const Context context;
  const int64_t before = memory_counters().live;
  reset_memory_peak();
  m.times.push_back(seconds_of([&] { m.mixer->forward(Var(x), {whole, &context, m.pattern}); }));
  m.peak = memory_counters().peak - before;
}

}  // namespace

std::vector<Growth> measure_growth(const GrowthOptions& options,
                                   const std::function<void(int, int, const std::string&)>& progress) {
  FlushDenormals flush;
  std::vector<Measured> all;
  const int64_t most = *std::max_element(options.lengths.begin(), options.lengths.end());
  for (const auto& entry : mixers::registry().entries())
    if (entry.name == kExact || entry.name.find(options.filter) != std::string::npos)
      all.push_back({{.mixer = entry.name, .points = {}},
                     mixer_for(entry.name, options.d_model, most),
                     entry.info.patterns.front(),
                     {},
                     0,
                     false});
  if (all.size() == 1 && options.filter != kExact)
    fail({"bench", "part of a mixer's name (see `sennit list mixers`)", options.filter});
  for (Measured& m : all)
    m.ended = m.growth.mixer != kExact && m.mixer->flops(options.lengths.front()) > kMostFirstFlops;
  std::stable_partition(all.begin(), all.end(), [](const Measured& m) { return m.growth.mixer == kExact; });
  const int total = static_cast<int>(all.size() * options.lengths.size());
  int done = 0;
  for (const int64_t n : options.lengths) {
    const Tensor x = random_rows(n, options.d_model, "x");
    for (Measured& m : all) m.times.clear();
    for (int r = -1; r < options.repeats; ++r)  // the first round warms up
      for (Measured& m : all) {
        if (m.ended || (!m.times.empty() && m.times[0] > options.longest)) continue;
        if (r < 0 && progress) progress(done, total, m.growth.mixer + " " + std::to_string(n));
        if (r < 0) ++done;
        pass(m, x);
        if (r < 0 && m.times[0] <= options.longest) m.times.clear();
      }
    for (Measured& m : all) {
      if (m.ended) {
        ++done;
        continue;
      }
      m.growth.points.push_back({n, median(m.times), m.peak});
      const double next =
          static_cast<double>(m.mixer->flops(2 * n)) / static_cast<double>(m.mixer->flops(n)) * median(m.times);
      m.ended = next > options.longest;
    }
  }
  std::vector<Growth> growths;
  for (Measured& m : all) {
    set_exponents(m.growth, *m.mixer);
    m.growth.crossover = crossover(m.growth, all[0].growth);
    growths.push_back(m.growth);
  }
  return growths;
}

}  // namespace sennit::bench
