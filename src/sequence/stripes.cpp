#include "sequence/stripes.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

void check_part(const char* name, double value) {
  if (!(value > 0 && value <= 1))
    fail({"sampled stripes", fmt::format("`{}` above 0 and at most 1", name), fmt::format("{}", value)});
}

}  // namespace

double Stripes::density(const AttentionSegment& segment) const {
  double kept = 0, all = 0;
  for (int64_t i = 0; i < segment.queries; ++i) {
    const int64_t seen = std::min(segment.keys, segment.offset + i + 1);
    all += static_cast<double>(seen);
    kept += static_cast<double>(std::min(seen, window));
  }
  kept *= static_cast<double>(columns.size());
  for (const auto& of_head : columns)
    for (const int64_t j : of_head)  // queries that stand `window` places after it, or more
      kept += static_cast<double>(
          std::min(segment.queries, std::max<int64_t>(0, segment.offset + segment.queries - j - window)));
  return kept / (all * static_cast<double>(columns.size()));
}

Stripes sampled_stripes(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                        const SparseAttentionOptions& options, const StripeSettings& settings) {
  check_part("window", settings.window), check_part("sampled", settings.sampled), check_part("mass", settings.mass);
  SENNIT_CHECK(options.slopes.empty() && segment.queries > 0);
  const auto part = [](double of, int64_t n) {
    return std::max<int64_t>(1, std::llround(of * static_cast<double>(n)));
  };
  Stripes stripes{part(settings.window, segment.keys), {}};
  stripes.columns.resize(static_cast<size_t>(options.heads));
  const int64_t step = part(1, static_cast<int64_t>(1 / settings.sampled)), last = segment.queries - 1;
  const Stride sample{last % step, step, last / step + 1};
  each_with_scratch(options.heads, ColumnMass::scratch_floats(segment, q.row_size() / options.heads),
                    [&](int64_t head, float* scratch) {
                      auto& columns = stripes.columns[static_cast<size_t>(head)];
                      if (settings.mass == 1) {
                        columns.resize(static_cast<size_t>(segment.keys));
                        std::iota(columns.begin(), columns.end(), 0);
                        return;
                      }
                      std::vector<double> sums(static_cast<size_t>(segment.keys));
                      ColumnMass(q, keys, segment, options, head).add(sample, stripes.window, sums.data(), scratch);
                      const double outside = std::accumulate(sums.begin(), sums.end(), 0.0);
                      columns = heaviest(sums, outside - (1 - settings.mass) * static_cast<double>(sample.count));
                    });
  return stripes;
}

TileSource striped(Stripes stripes) {
  return [s = std::move(stripes)](size_t segment, int64_t head, TileList& tiles) {
    SENNIT_CHECK(segment == 0);
    const Places q = tiles.queries();
    tiles.add(Places{q.begin - s.window + 1, q.end}, q, 0, s.window);
    tiles.add(s.columns[static_cast<size_t>(head)], q, s.window);
  };
}

}  // namespace sennit
