#pragma once
// The parts that the attention kernels share: products of a tile, scores of a row, and the running softmax. For kernels
// only (see simd.h).
#include "kernels/attention.h"
#include "kernels/panels.h"
#include "kernels/tile.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kRows = kAttentionRows;
constexpr int64_t kKeys = 64;  // in a block
#if defined(SENNIT_LEVEL_avx2)
constexpr int kVectors = 2;  // of sums in a row of a register tile
#else
constexpr int kVectors = 4;
#endif
constexpr int kTileRows = 6;
constexpr float kNothing = -__builtin_inff();

inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// c[rows, columns] (=|+=) a b, where a(r, p) = a[r * a_row + p * a_step] and row p of b starts at b + p * b_stride.
struct Product {
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_stride;
  float* c;
  int64_t c_stride;
  int64_t rows, columns, k;
  bool accumulate;
};

template <int R, int V>
[[gnu::noinline]] void tile(const Product& t, int64_t row, int64_t column) {
  const auto part = [&](int v) __attribute__((always_inline)) {
    return t.columns - column - v * kLanes;
  };
  const float* const a = t.a + row * t.a_row;
  const float* const b = t.b + column;
  float* const c = t.c + row * t.c_stride + column;
  vf sums[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const float* place = c + r * t.c_stride + v * kLanes;
      sums[r][v] = !t.accumulate ? zero() : V > 1 ? load(place) : load_some(place, part(v));
    }
  const int64_t a_row = t.a_row, a_step = t.a_step, b_stride = t.b_stride;
  add_products(
      sums, t.k, [](vf x, vf y, vf s) __attribute__((always_inline)) { return fma(x, y, s); },
      [=](int64_t p, int r) __attribute__((always_inline)) { return set(a[p * a_step + r * a_row]); },
      [=](int64_t p, int v) __attribute__((always_inline)) {
        const float* place = b + p * b_stride + v * kLanes;
        return V > 1 ? load(place) : load_some(place, part(v));
      });
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      float* place = c + r * t.c_stride + v * kLanes;
      if constexpr (V > 1)
        store(place, sums[r][v]);
      else
        store_some(place, sums[r][v], part(v));
    }
}

template <int R>
inline int64_t tile_rows(const Product& t, int64_t row) {
  for (; row + R <= t.rows; row += R) {
    int64_t column = 0;
    for (; column + kVectors * kLanes <= t.columns; column += kVectors * kLanes) tile<R, kVectors>(t, row, column);
    for (; column < t.columns; column += kLanes) tile<R, 1>(t, row, column);
  }
  return row;
}

inline void multiply(const Product& t) {
  tile_rows<1>(t, tile_rows<2>(t, tile_rows<kTileRows>(t, 0)));
}

struct Range {
  int64_t begin, end;
  bool operator==(const Range&) const = default;
};

// How far a query stands behind query 0.
inline int64_t place(const AttentionTask& t, int64_t query) {
  return t.together ? 0 : query;
}

// The keys that a query sees.
inline Range seen(const AttentionTask& t, int64_t query) {
  const int64_t position = place(t, query) + t.offset;
  Range r{t.window > 0 ? larger(0, position - t.window + 1) : 0,
          t.causal ? larger(0, smaller(t.keys, position + 1)) : t.keys};
  if (t.block == 0) return r;
  const int64_t start = position - (t.position + place(t, query)) % t.block;  // of the query's block
  return {larger(r.begin, start), smaller(r.end, start + t.block)};
}

// The part of a block of keys that a query sees, counted from the block's start; empty when begin >= end.
inline Range seen_of_block(const AttentionTask& t, int64_t query, int64_t first_key) {
  const Range r = seen(t, query);
  return {larger(0, r.begin - first_key), smaller(kKeys, r.end - first_key)};
}

// Scores of lanes j, ..., j + kLanes - 1 of a block from their products; what weighs nothing where the query does not
// see the key.
struct Scores {
  float scale, alibi, nothing;
  float distance;       // position of the query minus that of the block's first key
  Range range;          // of the block's keys that the query sees
  const float* places;  // [kKeys] positions of the keys minus that of the first; null: 0, 1, 2, ...
  vf lane;

  Scores(float scale_of_products, float slope, float weightless, int64_t first_distance, Range seen_keys,
         const float* key_places = nullptr)
      : scale(scale_of_products),
        alibi(slope),
        nothing(weightless),
        distance(static_cast<float>(first_distance)),
        range(seen_keys),
        places(key_places) {
    float count[kLanes];
    for (int i = 0; i < kLanes; ++i) count[i] = static_cast<float>(i);
    lane = load(count);
  }
  // As if the query saw all of them.
  SENNIT_INLINE vf bare(const float* products, int64_t j) const {
    const vf s = load(products + j) * set(scale), key = lane + set(static_cast<float>(j));
    return alibi == 0 ? s : fnma(set(alibi), abs(set(distance) - (places ? load(places + j) : key)), s);
  }
  SENNIT_INLINE vf at(const float* products, int64_t j) const {
    const vf s = bare(products, j), key = lane + set(static_cast<float>(j));
    const vf early = set(static_cast<float>(range.begin)), late = set(static_cast<float>(range.end));
    return select(less(key, early), set(nothing), select(less(key, late), s, set(nothing)));
  }
  bool whole() const { return range.begin == 0 && range.end == kKeys; }
  int64_t first_vector() const { return range.begin / kLanes * kLanes; }
};

inline void scale_row(float* x, float factor, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(x + i, load_n(x + i, m) * set(factor), m); });
}
inline float dot(const float* x, const float* y, int64_t n) {
  vf s = zero();
  for_lanes(n, [&](int64_t i, int64_t m) { s = fma(load_n(x + i, m), load_n(y + i, m), s); });
  return sum(s);
}
inline float exp_of(float x) {
  return highest(exp(set(x)));
}
inline float log_of(float x) {
  return highest(log(set(x)));
}

// The running sum of one row: weights are exp(s - top), or (s / top)^p; `total` is their sum.
struct Running {
  float top, total;
};

inline void start_row(Running& running, float* o, int64_t value_dim) {
  running = {kNothing, 0};
  for_lanes(value_dim, [&](int64_t i, int64_t n) { store_n(o + i, zero(), n); });
}

inline bool empty(Running r) {
  return r.top == kNothing && r.total == 0;
}

// Adds what later keys gave to a row.
inline void merge(Running& sum, float* o, Running later, const float* later_o, int64_t value_dim) {
  if (empty(later)) return;
  if (empty(sum)) {
    sum = later;
    for_lanes(value_dim, [&](int64_t i, int64_t n) { store_n(o + i, load_n(later_o + i, n), n); });
    return;
  }
  const float top = later.top > sum.top ? later.top : sum.top, kept = exp_of(sum.top - top),
              added = exp_of(later.top - top);
  sum = {top, sum.total * kept + later.total * added};
  for_lanes(value_dim, [&](int64_t i, int64_t n) {
    store_n(o + i, fma(load_n(later_o + i, n), set(added), load_n(o + i, n) * set(kept)), n);
  });
}

// Turns a row of products into exponentials and brings what was summed before to the new maximum.
inline void weigh_exponentials(const Scores& scores, float* row, Running& running, float* o, int64_t value_dim) {
  vf highest_lane = set(kNothing);
  for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
    const vf s = scores.at(row, j);
    store(row + j, s);
    highest_lane = max(highest_lane, s);
  }
  const float block_top = highest(highest_lane);
  if (block_top > running.top) {
    const float shrink = exp_of(running.top - block_top);
    running.top = block_top;
    running.total *= shrink;
    scale_row(o, shrink, value_dim);
  }
  const vf base = set(running.top == kNothing ? 0 : running.top);
  vf total = zero();
  for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
    const vf p = exp(load(row + j) - base);
    store(row + j, p);
    total = total + p;
  }
  running.total += sum(total);
}

// o += weights v for up to kTileRows rows. Keys that all of them see go together, the others row by row: each row adds
// what it sees in order, and nothing else.
inline void add_values(Product t, const Range* ranges) {
  Range common{0, kKeys};
  for (int64_t r = 0; r < t.rows; ++r)
    common = {larger(common.begin, ranges[r].begin), smaller(common.end, ranges[r].end)};
  if (common.begin >= common.end) common = {kKeys, kKeys};
  const auto add = [&t](int64_t row, int64_t rows, int64_t begin, int64_t end) {
    if (begin >= end) return;
    Product part = t;
    part.a += row * t.a_row + begin, part.b += begin * t.b_stride, part.c += row * t.c_stride;
    part.rows = rows, part.k = end - begin;
    multiply(part);
  };
  for (int64_t r = 0; r < t.rows; ++r) add(r, 1, ranges[r].begin, smaller(common.begin, ranges[r].end));
  add(0, t.rows, common.begin, common.end);
  for (int64_t r = 0; r < t.rows; ++r) add(r, 1, larger(common.end, ranges[r].begin), ranges[r].end);
}

inline float log_sum(Running r) {
  return r.top + log_of(r.total);
}

}  // namespace

}  // namespace sennit::kernels::SENNIT_LEVEL
