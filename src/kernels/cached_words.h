#pragma once
// Sums of values of q8_0 for a few queries in whole numbers: codes enter as they are, weights times the scales of a run
// as words, whole numbers of 15 bits and a sign, of which the largest is that of kCodeRows rows. Rows go in pairs. For
// kernels only (see simd.h); heads must be whole runs.
#include "kernels/cached_units.h"
#include "kernels/words.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kRunWords = static_cast<int>(kCachedRun) / kWordLanes;  // Words of a run

// Weights times the scales of V runs of values, as words.
template <int V, int R>
struct WeightWords {
  alignas(64) int16_t words[R][V][kCodeRows];
  float worth[R][V];

  // Of `count` rows from row 0, whose scales begin so many bytes after it; nothing after them.
  SENNIT_INLINE WeightWords(const float* w, int64_t w_stride, const CachedRows& rows, int64_t count, int64_t scales) {
    constexpr float kMost = 32767;
    ScalePairs<kCodeRows> of;
    for (int64_t j = 0; j < count; ++j) of.template read<V>(j, rows.first + j * rows.bytes + scales);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        alignas(64) float products[kCodeRows];
        for (int64_t j = 0; j < kCodeRows; j += kLanes)
          store(products + j, load_some(w + r * w_stride + j, count - j) * of.of(j, v));
        const float largest = largest_of(products, kCodeRows);
        worth[r][v] = largest / kMost;
        for (int64_t j = 0; j < kCodeRows; j += kLanes)
          store_rounded(words[r][v] + j, load(products + j) * set(kMost / largest));
      }
  }
};

// What rows in turns sum to, of a run's numbers.
struct RunSums {
  Words lower[kRunWords], upper[kRunWords];

  SENNIT_INLINE void add_to(float* o, float worth) const {
    constexpr int kFew = kLanes < 4 ? kLanes : 4;  // in 128 bits
    for (int v = 0; v < kRunWords; ++v) {
      alignas(64) float both[2][kLanes];
      store(both[0], float_pairs(lower[v])), store(both[1], float_pairs(upper[v]));
      for (int few = 0; few < kWordLanes / kFew; ++few, o += kFew)
        for (int i = 0; i < kFew; ++i) o[i] += both[few % 2][few / 2 * kFew + i] * worth;
    }
  }
};

// o[r][0 ...] += sum of w[r][j] times numbers of row j for j < count <= kCodeRows: V runs of R queries. Row 0 begins
// with the first code, `scales` bytes before the first of the scales.
template <int V, int R>
[[gnu::noinline]] void add_word_runs(const float* w, int64_t w_stride, const CachedRows& rows, int64_t count,
                                     int64_t scales, float* o, int64_t o_stride) {
  const WeightWords<V, R> by(w, w_stride, rows, count, scales);
  RunSums sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 2
      for (int part = 0; part < kRunWords; ++part) sums[r][v].lower[part] = sums[r][v].upper[part] = no_words();
  for (int64_t j = 0; j < count; j += 2) {
    const uint8_t *a = rows.first + j * rows.bytes, *b = rows.first + smaller(j + 1, count - 1) * rows.bytes;
    ask_for_later(a, rows.bytes), ask_for_later(b, rows.bytes);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v)
#pragma GCC unroll 2
      for (int part = 0; part < kRunWords; ++part) {
        const int64_t at = v * kCachedRun + part * kWordLanes;
        const Words left = widen_codes(a + at), right = widen_codes(b + at), lower = lower_turns(left, right),
                    upper = upper_turns(left, right);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const Words pair = set_pair(by.words[r][v] + j);
          sums[r][v].lower[part] = add_pairs(sums[r][v].lower[part], lower, pair);
          sums[r][v].upper[part] = add_pairs(sums[r][v].upper[part], upper, pair);
        }
      }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[r][v].add_to(o + r * o_stride + v * kCachedRun, by.worth[r][v]);
}

template <int V, int R>
SENNIT_INLINE int64_t add_runs(const Queries& w, int64_t r, const CachedRows& rows, int64_t begin, int64_t end,
                               int64_t u, int64_t dim, float* o, int64_t o_stride) {
  for (; u + V * kCachedRun <= dim; u += V * kCachedRun)
    for (int64_t j = begin; j < end; j += kCodeRows)
      add_word_runs<V, R>(w.x + r * w.stride + j, w.stride, {rows.first + j * rows.bytes + u, rows.bytes, rows.format},
                          smaller(kCodeRows, end - j), dim - u + 2 * (u / kCachedRun), o + r * o_stride + u, o_stride);
  return u;
}

// o[r][dim] += sum of w[r][j] times row j for begin <= j < end, for queries that see the same rows.
inline void add_words(const Queries& w, const CachedRows& rows, int64_t begin, int64_t end, int64_t dim, float* o,
                      int64_t o_stride) {
  int64_t r = 0;
  for (; r + kQueriesAbreast <= w.count; r += kQueriesAbreast)
    add_runs<1, kQueriesAbreast>(w, r, rows, begin, end, 0, dim, o, o_stride);
  for (; r < w.count; ++r) {
    const int64_t u = add_runs<2, 1>(w, r, rows, begin, end, 0, dim, o, o_stride);
    add_runs<1, 1>(w, r, rows, begin, end, u, dim, o, o_stride);
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
