#pragma once
// Products of a few queries with keys of q8_0 in whole numbers: codes enter as they are, queries as whole numbers of 15
// bits and a sign, of which the largest is that of their head. What this adds to an error is a hundredth of what codes
// are off by; it takes a third of the operations of widened codes (cached_units.h). For kernels only (see simd.h);
// heads must be whole vectors of units.
#include "kernels/cached_units.h"
#include "kernels/quads.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// A query as worth (128 high + low), and what the digits of each run sum to, in the place of its numbers.
struct Digits {
  int8_t *high, *low;             // [dim]
  int32_t *high_sums, *low_sums;  // [dim / kCachedRun]
  float* worth;

  Digits(float* place, int64_t dim)
      : high(reinterpret_cast<int8_t*>(place)),
        low(high + dim),
        high_sums(reinterpret_cast<int32_t*>(low + dim)),
        low_sums(high_sums + dim / kCachedRun),
        worth(reinterpret_cast<float*>(low_sums + dim / kCachedRun)) {}

  void write(const float* x, int64_t dim) const {
    constexpr float kMost = 127 * 128;
    const float largest = largest_of(x, dim);
    *worth = largest / kMost;
    for (int64_t run = 0; run * kCachedRun < dim; ++run) write_run(x + run * kCachedRun, kMost / largest, run);
  }

 private:
  void write_run(const float* x, float by, int64_t run) const {
    int8_t *const highs = high + run * kCachedRun, *const lows = low + run * kCachedRun;
    high_sums[run] = low_sums[run] = 0;
    for (int64_t i = 0; i < kCachedRun; ++i) {
      const float whole = __builtin_rintf(x[i] * by);
      const int32_t all = __builtin_isfinite(whole) ? static_cast<int32_t>(whole) : 0, h = (all + 64) >> 7;
      highs[i] = static_cast<int8_t>(h), lows[i] = static_cast<int8_t>(all - 128 * h);
      high_sums[run] += highs[i], low_sums[run] += lows[i];
    }
  }
};

// out[r][0 ...] += products of numbers u, u + 1, ... of queries, each in the place of `dim` numbers, with those of a
// vector of rows: a vector of units of each, the first of which stand at `units`, of which there are `count`.
template <bool kWhole>
[[gnu::noinline]] void dot_digit_tile(float* queries, int64_t some, int64_t dim, int64_t u, const uint8_t* units,
                                      int64_t count, int64_t row_bytes, const vf (&scales)[kUnitScales], float* out,
                                      int64_t width) {
  constexpr int kUnit = 4, kRunUnits = kLanes / kUnitScales;  // codes of a unit, units of a run
  const auto row = [&](int k) { return units + (kWhole ? k : smaller(k, count - 1)) * row_bytes; };
  for (int k = 0; k < kLanes; ++k) ask_for_later(row(k), row_bytes);
  vf turned[kLanes];
#pragma GCC unroll 16
  for (int k = 0; k < kLanes; ++k) turned[k] = load(reinterpret_cast<const float*>(row(k)));
  transpose(turned);
#pragma GCC unroll 16
  for (vf& x : turned) x = left_quads(x);
  for (int64_t r = 0; r < some; ++r) {
    const Digits q(queries + r * dim, dim);
    vf total = load(out + r * width);
#pragma GCC unroll 2
    for (int run = 0; run < kUnitScales; ++run) {
      const int64_t first = u + run * kCachedRun, at = first / kCachedRun;
      vf high = zero(), low = zero();
#pragma GCC unroll 8
      for (int i = 0; i < kRunUnits; ++i) {
        high = dot_quads(turned[run * kRunUnits + i], set_quad(q.high + first + i * kUnit), high);
        low = dot_quads(turned[run * kRunUnits + i], set_quad(q.low + first + i * kUnit), low);
      }
      const vf both =
          fma(float_sums(high, set_sum(q.high_sums[at])), set(128), float_sums(low, set_sum(q.low_sums[at])));
      total = fma(both * set(*q.worth), scales[run], total);
    }
    store(out + r * width, total);
  }
}

// out[r][width] = products of some queries, as digits, with `count` rows, up to kCodeRows; anything after them.
inline void dot_digits(float* queries, int64_t some, const CachedRows& rows, int64_t count, int64_t dim, float* out,
                       int64_t width) {
  for (int64_t r = 0; r < some; ++r)
    for (int64_t j = 0; j < count; j += kLanes) store(out + r * width + j, zero());
  for (int64_t u = 0; u < dim; u += 4 * kLanes) {
    ScalePairs<kCodeRows> pairs;
    for (int64_t j = 0; j < count; ++j) pairs.read(j, rows.first + j * rows.bytes + dim + 2 * (u / kCachedRun));
    for (int64_t j = 0; j < count; j += kLanes) {
      vf scales[kUnitScales];
      for (int run = 0; run < kUnitScales; ++run) scales[run] = pairs.of(j, run);
      (j + kLanes <= count ? dot_digit_tile<true> : dot_digit_tile<false>)(queries, some, dim, u,
                                                                           rows.first + j * rows.bytes + u, count - j,
                                                                           rows.bytes, scales, out + j, width);
    }
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
