#include "sequence/column_mass.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "ops/count.h"

namespace sennit {
namespace {
constexpr int64_t kRowsAtOnce = 16;
}

ColumnMass::ColumnMass(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                       const SparseAttentionOptions& options, int64_t head)
    : q_stride_(q.row_size()),
      k_stride_(keys.row_size()),
      dim_(q.row_size() / options.heads),
      keys_(segment.keys),
      offset_(segment.offset),
      scale_(options.scale) {
  q_ = q.data() + segment.query_begin * q_stride_ + head * dim_;
  k_ = keys.data() + segment.key_begin * k_stride_ + head * options.kv_heads / options.heads * dim_;
}

int64_t ColumnMass::scratch_floats(const AttentionSegment& segment, int64_t dk) {
  return kernels::kTileKeys * dk + kRowsAtOnce * segment.keys;
}

void ColumnMass::add(const Stride& queries, int64_t near, double* sums, float* scratch) const {
  float* const scores = scratch + kernels::kTileKeys * dim_;
  for (int64_t r = 0; r < queries.count; r += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, queries.count - r), first = queries.first + r * queries.step,
                  last_seen = std::min(keys_, first + (rows - 1) * queries.step + offset_ + 1);
    count_flops(2 * rows * last_seen * dim_);
    kernels::sparse_attention().scores(q_ + first * q_stride_, queries.step * q_stride_, rows, k_, k_stride_, last_seen,
                                       dim_, scores, keys_, scratch);
    for (int64_t i = 0; i < rows; ++i) {
      float* const row = scores + i * keys_;
      const int64_t place = first + i * queries.step + offset_, seen = std::min(keys_, place + 1);
      const float top = *std::max_element(row, row + seen);
      double total = 0;
      for (int64_t j = 0; j < seen; ++j) total += row[j] = std::exp(scale_ * (row[j] - top));
      const int64_t far = std::clamp<int64_t>(place - near + 1, 0, seen);
      for (int64_t j = 0; j < far; ++j) sums[j] += row[j] / total;
    }
  }
}

std::vector<int32_t> heaviest(std::span<const double> weights, double wanted) {
  std::vector<int32_t> places(weights.size());
  std::iota(places.begin(), places.end(), 0);
  std::sort(places.begin(), places.end(), [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
  size_t kept = 0;
  for (double sum = 0; kept < places.size() && sum < wanted && weights[places[kept]] > 0; ++kept)
    sum += weights[places[kept]];
  places.resize(kept);
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace sennit
