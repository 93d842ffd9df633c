#pragma once
// Products of a few queries with rows of keys, a vector of units at a time: the lanes of a product are summed when all
// its vectors are. That takes a third of the operations of turned keys (cached_units.h), in another order than that of
// many queries. Codes of q8_0 enter as whole numbers (cached_digits.h). For kernels only (see simd.h).
#include "kernels/cached_digits.h"
#include "kernels/cached_words.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// parts[r][dim]: queries as dot_lanes meets rows of a format with them: all the first numbers of a vector of units,
// then the second; or digits.
inline void part_queries(const Queries& q, CacheFormat format, int64_t dim, float* parts) {
  with_format(
      format, [&](auto constant) __attribute__((always_inline)) {
        constexpr CacheFormat F = decltype(constant)::value;
        for (int64_t r = 0; r < q.count; ++r) {
          const float* const x = q.x + r * q.stride;
          float* const to = parts + r * dim;
          if constexpr (F == CacheFormat::q8_0)
            Digits(to, dim).write(x, dim);
          else
            for (int64_t u = 0; u < dim; u += kUnitsDim<F>)
              for (int part = 0; part < kUnitNumbers<F>; ++part)
                for (int i = 0; i < kLanes; ++i) to[u + part * kLanes + i] = x[u + unit_place<F>(part, i)];
        }
      });
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
  const auto add = [&](int k, int64_t u) __attribute__((always_inline)) {
    const uint8_t* const p = row[k] + u * cached_unit_bytes(F);
    const vf units = load_units(p, rows.bytes);
#pragma GCC unroll 4
    for (int part = 0; part < kNumbers; ++part) {
      const vf x = unit_vector<F>(p, units, part, UnitScale{});
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[k * R + r] = fma(load(parts + r * dim + u + part * kLanes), x, sums[k * R + r]);
    }
  };
  if constexpr (F == CacheFormat::f32) {
    for (int64_t u = 0; u < dim; u += kUnitsDim<F>)
#pragma GCC unroll 16
      for (int k = 0; k < kKeysHere; ++k) add(k, u);
  } else {  // short rows one after the other: memory answers sooner what is asked for in order
#pragma GCC unroll 16
    for (int k = 0; k < kKeysHere; ++k)
      for (int64_t u = 0; u < dim; u += kUnitsDim<F>) add(k, u);
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

// out[r][width] = products of a few queries, in parts, with `count` rows, zeros after them.
inline void dot_lanes(float* parts, int64_t queries, const CachedRows& rows, int64_t count, int64_t dim, float* out,
                      int64_t width) {
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat F = decltype(format)::value;
        if constexpr (F == CacheFormat::q8_0) {
          dot_digits(parts, queries, rows, count, dim, out, width);
        } else {
          const int64_t r = dot_queries < F, kLanes < 4 ? 1 : 4 > (parts, 0, queries, rows, count, dim, out, width);
          dot_queries<F, 1>(parts, r, queries, rows, count, dim, out, width);
        }
      });
  for (int64_t r = 0; r < queries; ++r)
    for (int64_t j = count; j < width; ++j) out[r * width + j] = 0;
}

// o[r][0 ...] += sum of w[r][j] times row j for begin <= j < end, of a few queries that see the same rows.
inline void add_lanes(const Queries& w, const CachedRows& rows, int64_t begin, int64_t end, int64_t dim, float* o,
                      int64_t o_stride) {
  const bool words = rows.format == CacheFormat::q8_0 && dim % kCachedRun == 0;
  (words ? add_words : add_rows)(w, rows, begin, end, dim, o, o_stride);
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
