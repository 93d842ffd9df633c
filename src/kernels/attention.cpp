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

int64_t larger(int64_t a, int64_t b) {
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
int64_t tile_rows(const Product& t, int64_t row) {
  for (; row + R <= t.rows; row += R) {
    int64_t column = 0;
    for (; column + kVectors * kLanes <= t.columns; column += kVectors * kLanes) tile<R, kVectors>(t, row, column);
    for (; column < t.columns; column += kLanes) tile<R, 1>(t, row, column);
  }
  return row;
}

void multiply(const Product& t) {
  tile_rows<1>(t, tile_rows<2>(t, tile_rows<kTileRows>(t, 0)));
}

struct Range {
  int64_t begin, end;
};

Range seen(const AttentionTask& t, int64_t query) {
  const int64_t position = query + t.offset;
  return {t.window > 0 ? larger(0, position - t.window + 1) : 0,
          t.causal ? larger(0, smaller(t.keys, position + 1)) : t.keys};
}

// The part of a block of keys that a query sees, counted from the block's start; empty when begin >= end.
Range seen_of_block(const AttentionTask& t, int64_t query, int64_t first_key) {
  const Range r = seen(t, query);
  return {larger(0, r.begin - first_key), smaller(kKeys, r.end - first_key)};
}

// Scores of lanes j, ..., j + kLanes - 1 of a block from their products; -inf where the query does not see the key.
struct Scores {
  float scale, alibi;
  float distance;  // position of the query minus that of the block's first key
  Range range;
  vf lane;

  Scores(const AttentionTask& t, int64_t query, int64_t first_key)
      : scale(t.scale),
        alibi(t.alibi),
        distance(static_cast<float>(query + t.offset - first_key)),
        range(seen_of_block(t, query, first_key)) {
    float count[kLanes];
    for (int i = 0; i < kLanes; ++i) count[i] = static_cast<float>(i);
    lane = load(count);
  }
  SENNIT_INLINE vf at(const float* products, int64_t j) const {
    const vf key = lane + set(static_cast<float>(j));
    vf s = load(products + j) * set(scale);
    if (alibi != 0) s = fnma(set(alibi), abs(set(distance) - key), s);
    const vf early = set(static_cast<float>(range.begin)), late = set(static_cast<float>(range.end));
    return select(less(key, early), set(kNothing), select(less(key, late), s, set(kNothing)));
  }
  int64_t first_vector() const { return range.begin / kLanes * kLanes; }
};

void scale_row(float* x, float factor, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(x + i, load_n(x + i, m) * set(factor), m); });
}
float dot(const float* x, const float* y, int64_t n) {
  vf s = zero();
  for_lanes(n, [&](int64_t i, int64_t m) { s = fma(load_n(x + i, m), load_n(y + i, m), s); });
  return sum(s);
}
float exp_of(float x) {
  return highest(exp(set(x)));
}
float log_of(float x) {
  return highest(log(set(x)));
}

// The running softmax of one row: weights are exp(s - top), `total` is their sum.
struct Running {
  float top, total;
};

// Turns a row of products into weights and brings what was summed before to the new maximum.
void weigh(const Scores& scores, float* row, Running& running, float* o, int64_t value_dim) {
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
void add_values(Product t, const Range* ranges) {
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

struct ForwardScratch {
  float *keys, *weights;  // [key_dim, kKeys], [kRows, kKeys]
  Running* running;       // [kRows]
  ForwardScratch(const AttentionTask& t, float* scratch)
      : keys(scratch),
        weights(keys + t.key_dim * kKeys),
        running(reinterpret_cast<Running*>(weights + kRows * kKeys)) {}
};

// Rows [first, first + rows) against one block of keys, of which each sees something.
void forward_block(const AttentionTask& t, int64_t first, int64_t rows, int64_t first_key, float* o, int64_t o_stride,
                   float* keys, float* weights, Running* running) {
  multiply({.a = t.q + first * t.q_stride,
            .a_row = t.q_stride,
            .a_step = 1,
            .b = keys,
            .b_stride = kKeys,
            .c = weights,
            .c_stride = kKeys,
            .rows = rows,
            .columns = kKeys,
            .k = t.key_dim,
            .accumulate = false});
  for (int64_t r = 0; r < rows; r += kTileRows) {
    Range ranges[kTileRows];
    const int64_t group = smaller(kTileRows, rows - r);
    for (int64_t g = 0; g < group; ++g) {
      const Scores scores(t, first + r + g, first_key);
      ranges[g] = scores.range;
      weigh(scores, weights + (r + g) * kKeys, running[r + g], o + (first + r + g) * o_stride, t.value_dim);
    }
    add_values({.a = weights + r * kKeys,
                .a_row = kKeys,
                .a_step = 1,
                .b = t.v + first_key * t.v_stride,
                .b_stride = t.v_stride,
                .c = o + (first + r) * o_stride,
                .c_stride = o_stride,
                .rows = group,
                .columns = t.value_dim,
                .k = 0,
                .accumulate = true},
               ranges);
  }
}

void forward_rows(const AttentionTask& t, int64_t first, int64_t rows, float* o, int64_t o_stride, float* lse,
                  const ForwardScratch& s) {
  for (int64_t r = 0; r < rows; ++r) {
    s.running[r] = {kNothing, 0};
    for_lanes(t.value_dim, [&](int64_t i, int64_t n) { store_n(o + (first + r) * o_stride + i, zero(), n); });
  }
  const int64_t end = seen(t, first + rows - 1).end;
  for (int64_t j = seen(t, first).begin / kKeys * kKeys; j < end; j += kKeys) {
    int64_t from = 0, to = rows;  // the rows that see something of the block
    while (from < to && seen(t, first + from).end <= j) ++from;
    while (from < to && seen(t, first + to - 1).begin >= j + kKeys) --to;
    if (from == to) continue;
    pack_units<false>(t.k + j * t.k_stride, t.k_stride, false, smaller(kKeys, t.keys - j), t.key_dim, s.keys, kKeys,
                      t.key_dim);
    forward_block(t, first + from, to - from, j, o, o_stride, s.keys, s.weights, s.running + from);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const auto [top, total] = s.running[r];
    lse[first + r] = top + log_of(total);
    if (total != 0) scale_row(o + (first + r) * o_stride, 1 / total, t.value_dim);
  }
}

void forward(const AttentionTask& t, int64_t begin, int64_t end, float* o, int64_t o_stride, float* lse,
             float* scratch) {
  const ForwardScratch s(t, scratch);
  for (int64_t i = begin; i < end; i += kRows) forward_rows(t, i, smaller(kRows, end - i), o, o_stride, lse, s);
}

struct BackwardScratch {
  float *keys, *values;     // [key_dim, kKeys], [value_dim, kKeys]
  float *weights, *slopes;  // [kRows, kKeys]: p, and ds times scale
  float* delta;             // [queries]: do . o
  BackwardScratch(const AttentionTask& t, float* scratch)
      : keys(scratch),
        values(keys + t.key_dim * kKeys),
        weights(values + t.value_dim * kKeys),
        slopes(weights + kRows * kKeys),
        delta(slopes + kRows * kKeys) {}
};

// A row of products q . k and do . v becomes one of p and scale ds; zeros where the query does not see the key.
void weigh_slopes(const Scores& scores, float lse, float delta, float* weights, float* slopes) {
  const bool blind = lse == kNothing;
  for (int64_t j = 0; j < kKeys; j += kLanes) {
    const vf s = scores.at(weights, j);
    const vf p = blind ? zero() : exp(s - set(lse));
    const vf ds = p * (load(slopes + j) - set(delta)) * set(scores.scale);
    store(weights + j, p);
    store(slopes + j, ds);
  }
}

void backward(const AttentionTask& t, const float* o, const float* d_o, int64_t o_stride, const float* lse, float* dq,
              float* dk, float* dv, int64_t dq_stride, int64_t dk_stride, int64_t dv_stride, float* scratch) {
  const BackwardScratch s(t, scratch);
  for (int64_t i = 0; i < t.queries; ++i) s.delta[i] = dot(o + i * o_stride, d_o + i * o_stride, t.value_dim);
  for (int64_t j = 0; j < t.keys; j += kKeys) {
    const int64_t keys = smaller(kKeys, t.keys - j);
    const int64_t begin = t.causal ? larger(0, j - t.offset) : 0;
    const int64_t end = t.window > 0 ? smaller(t.queries, j + keys - 1 - t.offset + t.window) : t.queries;
    if (begin >= end) continue;
    const float *k = t.k + j * t.k_stride, *v = t.v + j * t.v_stride;
    pack_units<false>(k, t.k_stride, false, keys, t.key_dim, s.keys, kKeys, t.key_dim);
    pack_units<false>(v, t.v_stride, false, keys, t.value_dim, s.values, kKeys, t.value_dim);
    for (int64_t i = begin; i < end; i += kRows) {
      const int64_t rows = smaller(kRows, end - i);
      const float *q = t.q + i * t.q_stride, *d = d_o + i * o_stride;
      multiply({q, t.q_stride, 1, s.keys, kKeys, s.weights, kKeys, rows, kKeys, t.key_dim, false});
      multiply({d, o_stride, 1, s.values, kKeys, s.slopes, kKeys, rows, kKeys, t.value_dim, false});
      for (int64_t r = 0; r < rows; ++r)
        weigh_slopes(Scores(t, i + r, j), lse[i + r], s.delta[i + r], s.weights + r * kKeys, s.slopes + r * kKeys);
      multiply({s.weights, 1, kKeys, d, o_stride, dv + j * dv_stride, dv_stride, keys, t.value_dim, rows, true});
      multiply({s.slopes, 1, kKeys, q, t.q_stride, dk + j * dk_stride, dk_stride, keys, t.key_dim, rows, true});
      multiply({s.slopes, kKeys, 1, k, t.k_stride, dq + i * dq_stride, dq_stride, rows, t.key_dim, keys, true});
    }
  }
}

int64_t scratch_floats(const AttentionTask& t) {
  return (t.key_dim + t.value_dim) * kKeys + 2 * kRows * kKeys + larger(2 * kRows, t.queries);
}

}  // namespace

const Attention attention_table = {.scratch_floats = scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
