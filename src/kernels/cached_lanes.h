#pragma once
// Products of a few queries with rows of keys, a vector of units at a time: the lanes of a product are summed when all
// its vectors are. That takes a third of the operations of turned keys (cached_units.h), in another order than that of
// many queries. For kernels only (see simd.h).
#include "kernels/cached_units.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kMostLaneNumbers = 4096;  // of all queries

// parts[r][dim]: the numbers of each query as vectors of units meet them, all the first ones of units, then the second.
template <CacheFormat F>
inline void part_queries(const Queries& q, int64_t dim, float* parts) {
  constexpr int kNumbers = kUnitNumbers<F>;
  for (int64_t r = 0; r < q.count; ++r, parts += dim)
    for (int64_t u = 0; u < dim; u += kUnitsDim<F>)
      for (int part = 0; part < kNumbers; ++part)
        for (int i = 0; i < kLanes; ++i) parts[u + part * kLanes + i] = q.x[r * q.stride + u + unit_place<F>(part, i)];
}

// out[r][width] = products of R queries with kLanes / R rows from row `first`, of which there are `count` in all.
template <CacheFormat F, int R>
[[gnu::noinline]] void dot_tile(const float* parts, const CachedRows& rows, int64_t first, int64_t count, int64_t dim,
                                float* out, int64_t width) {
  constexpr int kKeysHere = kLanes / R, kNumbers = kUnitNumbers<F>;
  const uint8_t* row[kKeysHere];
  for (int k = 0; k < kKeysHere; ++k) row[k] = rows.first + smaller(first + k, count - 1) * rows.bytes;
  vf sums[kKeysHere * R];
#pragma GCC unroll 16
  for (vf& s : sums) s = zero();
  for (int64_t v = 0; v * kUnitsDim<F> < dim; ++v, parts += kUnitsDim<F>)
#pragma GCC unroll 16
    for (int k = 0; k < kKeysHere; ++k) {
      const vf units = load_units(row[k] + 4 * kLanes * v, rows.bytes);
      UnitScale scale{};
      if constexpr (F == CacheFormat::q8_0) scale = unit_scale(lane_scales(row[k] + dim + 2 * kUnitScales * v));
#pragma GCC unroll 4
      for (int part = 0; part < kNumbers; ++part) {
        const vf x = unit_vector<F>(row[k] + 4 * kLanes * v, units, part, scale);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sums[k * R + r] = fma(load(parts + r * dim + part * kLanes), x, sums[k * R + r]);
      }
    }
  fold(sums);
  alignas(64) float products[kLanes];
  store(products, sums[0]);
  for (int r = 0; r < R; ++r)
    for (int k = 0; k < kKeysHere && first + k < count; ++k) out[r * width + first + k] = products[k * R + r];
}

template <CacheFormat F, int R>
inline int64_t dot_queries(const float* parts, int64_t r, int64_t queries, const CachedRows& rows, int64_t count,
                           int64_t dim, float* out, int64_t width) {
  for (; r + R <= queries; r += R)
    for (int64_t j = 0; j < count; j += kLanes / R)
      dot_tile<F, R>(parts + r * dim, rows, j, count, dim, out + r * width, width);
  return r;
}

// out[r][width] = products of a few queries with `count` rows, zeros after them.
inline void dot_lanes(const Queries& q, const CachedRows& rows, int64_t count, int64_t dim, float* out, int64_t width) {
  if (!whole_units(rows.format, dim) || q.count * dim > kMostLaneNumbers)
    return dot_rows(q, rows, count, dim, out, width);
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat F = decltype(format)::value;
        alignas(64) float parts[kMostLaneNumbers];
        part_queries<F>(q, dim, parts);
        int64_t r = dot_queries < F, kLanes < 4 ? 1 : 4 > (parts, 0, q.count, rows, count, dim, out, width);
        dot_queries<F, 1>(parts, r, q.count, rows, count, dim, out, width);
      });
  for (int64_t r = 0; r < q.count; ++r)
    for (int64_t j = count; j < width; ++j) out[r * width + j] = 0;
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
