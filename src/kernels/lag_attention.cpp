#include "kernels/lag_attention.h"

#include "kernels/attention_tile.h"
#include "kernels/cached_rows.h"
#include "kernels/lag_row.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// |q_i - gain k_j|^2
float apart(const LagRow& row, int64_t j, float gain) {
  const LagAttentionTask& t = row.t;
  vf s = zero();
  for_lanes(t.key_dim, [&](int64_t l, int64_t k) {
    const vf d = fnma(set(gain), load_n(row.k(j) + l, k), load_n(row.q() + l, k));
    s = fma(d, d, s);
  });
  return sum(s);
}

// w [keys] of one query, and their sum.
float weigh(const LagRow& row, float* w) {
  const LagAttentionTask& t = row.t;
  const int64_t end = row.end();
  float top = kNothing, total = 0;
  for (int64_t j = 0; j < end; ++j) {
    const int64_t at = row.place(j);
    const float b = t.b[at];
    if (t.rule == LagRule::softmax)
      w[j] = t.scale * dot(row.q(), row.k(j), t.key_dim) + b;
    else if (t.rule == LagRule::robust)
      w[j] = 1 / (b + t.scale * apart(row, j, t.g[at]));
    else
      w[j] = -t.scale * apart(row, j, t.g[at]) / b - log_of(b);
    top = w[j] > top ? w[j] : top;
  }
  if (t.rule != LagRule::robust)
    for_lanes(end, [&](int64_t j, int64_t k) { store_n(w + j, exp(load_n(w + j, k) - set(top)), k); });
  for (int64_t j = 0; j < end; ++j) total += w[j];
  return total;
}

// Of a run of queries, and of the block of keys at hand. Entry j - i + rows - 1 of the tables is that of key j and of
// query i of the run.
struct LagScratch {
  float *keys, *weights;        // [key_dim, kKeys], [kRows, kKeys]
  float *b, *g, *log_b;         // [kRows + t.keys + kKeys] each
  float *of_keys, *of_queries;  // |k|^2 [kKeys], |q|^2 [kRows]
  Running* running;             // [kRows]
  LagScratch(const LagAttentionTask& t, float* scratch)
      : keys(scratch),
        weights(keys + t.key_dim * kKeys),
        b(weights + kRows * kKeys),
        g(b + kRows + t.keys + kKeys),
        log_b(g + kRows + t.keys + kKeys),
        of_keys(log_b + kRows + t.keys + kKeys),
        of_queries(of_keys + kKeys),
        running(reinterpret_cast<Running*>(of_queries + kRows)) {}
};

int64_t scratch_floats(const LagAttentionTask& t) {
  return t.key_dim * kKeys + kRows * kKeys + 3 * (kRows + t.keys + kKeys) + kKeys + 3 * kRows;
}

// The tables of rows first, ..., first + rows - 1, with what stands at their ends beyond them.
void lay_tables(const LagAttentionTask& t, int64_t first, int64_t rows, const LagScratch& s) {
  const int64_t count = rows + t.keys + kKeys;
  const LagRow last{t, first + rows - 1};
  for (int64_t e = 0; e < count; ++e) {
    const int64_t at = last.place(e);
    s.b[e] = t.b[at], s.g[e] = t.g[at];
  }
  if (t.rule == LagRule::exponential)
    for_lanes(count, [&](int64_t e, int64_t k) { store_n(s.log_b + e, log(load_n(s.b + e, k)), k); });
}

// What a row of products q . k says of the keys [0, end) of a block: of which the tables begin at b, g and log_b.
struct Lags {
  const LagAttentionTask& t;
  const float *b, *g, *log_b, *of_keys;
  float of_query;
  int64_t end;
  vf lane;

  SENNIT_INLINE vf apart(const float* row, int64_t j) const {
    const vf gain = load(g + j);
    return max(zero(), fnma(gain + gain, load(row + j), fma(gain * gain, load(of_keys + j), set(of_query))));
  }
  SENNIT_INLINE vf score(const float* row, int64_t j) const {
    if (t.rule == LagRule::softmax) return fma(load(row + j), set(t.scale), load(b + j));
    return -(set(t.scale) * apart(row, j) / load(b + j)) - load(log_b + j);
  }
  SENNIT_INLINE vf if_seen(vf x, int64_t j, float otherwise) const {
    return select(less(lane + set(static_cast<float>(j)), set(static_cast<float>(end))), x, set(otherwise));
  }
};

// Weights times gains in the place of products; `running` and o come to the new maximum.
void weigh_lags(const Lags& lags, float* row, Running& running, float* o) {
  vf total = zero();
  if (lags.t.rule == LagRule::robust) {
    for (int64_t j = 0; j < lags.end; j += kLanes) {
      const vf w = set(1) / fma(set(lags.t.scale), lags.apart(row, j), load(lags.b + j)), seen = lags.if_seen(w, j, 0);
      total = total + seen;
      store(row + j, seen * load(lags.g + j));
    }
    running = {0, running.total + sum(total)};
    return;
  }
  vf highest_lane = set(kNothing);
  for (int64_t j = 0; j < lags.end; j += kLanes) {
    const vf s = lags.if_seen(lags.score(row, j), j, kNothing);
    store(row + j, s);
    highest_lane = max(highest_lane, s);
  }
  if (const float top = highest(highest_lane); top > running.top) {
    const float shrink = exp_of(running.top - top);
    running = {top, running.total * shrink};
    scale_row(o, shrink, lags.t.value_dim);
  }
  for (int64_t j = 0; j < lags.end; j += kLanes) {
    const vf w = exp(load(row + j) - set(running.top));
    total = total + w;
    store(row + j, w * load(lags.g + j));
  }
  running.total += sum(total);
}

// Rows [first, first + rows), of which each sees something of the block of keys from `key` on; o is the first one's.
void add_block(const LagAttentionTask& t, int64_t first, int64_t rows, int64_t key, const float* tables, float* o,
               int64_t o_stride, Running* running, const float* of_queries, const LagScratch& s) {
  constexpr int64_t kFew = 8;  // rows that a panel of keys is not worth packing for
  const int64_t keys = smaller(kKeys, t.keys - key);
  const CachedRows key_rows{t.k, t.k_stride, CacheFormat::f32, key}, value_rows{t.v, t.v_stride, CacheFormat::f32, key};
  const float* const q = t.q + first * t.q_stride;
  for (int64_t j = 0; j < kKeys; ++j) {
    const float* k = t.k + (key + smaller(j, keys - 1)) * t.k_stride;
    s.of_keys[j] = dot(k, k, t.key_dim);
  }
  if (rows <= kFew) {
    dot_cached(q, t.q_stride, rows, key_rows, keys, t.key_dim, s.weights, kKeys);
  } else {
    pack_cached(key_rows, keys, t.key_dim, s.keys, kKeys);
    multiply({q, t.q_stride, 1, s.keys, kKeys, s.weights, kKeys, rows, kKeys, t.key_dim, false});
  }
  float count[kLanes];
  for (int i = 0; i < kLanes; ++i) count[i] = static_cast<float>(i);
  for (int64_t r = 0; r < rows; r += kTileRows) {
    Range ranges[kTileRows];
    const int64_t group = smaller(kTileRows, rows - r);
    for (int64_t n = r; n < r + group; ++n) {
      const int64_t end = smaller(kKeys, LagRow{t, first + n}.end() - key);
      const float* const table = tables - n;
      ranges[n - r] = {0, end};
      float *const weights = s.weights + n * kKeys, *const sums = o + n * o_stride;
      weigh_lags({t, table, table + (s.g - s.b), table + (s.log_b - s.b), s.of_keys, of_queries[n], end, load(count)},
                 weights, running[n], sums);
      if (rows <= kFew) add_cached(weights, value_rows, 0, end, t.value_dim, sums);
    }
    if (rows <= kFew) continue;
    add_values({s.weights + r * kKeys, kKeys, 1, t.v + key * t.v_stride, t.v_stride, o + r * o_stride, o_stride, group,
                t.value_dim, 0, true},
               ranges);
  }
}

void forward(const LagAttentionTask& t, float* o, int64_t o_stride, float* scratch) {
  const LagScratch s(t, scratch);
  for (int64_t first = 0; first < t.queries; first += kRows, o += kRows * o_stride) {
    const int64_t rows = smaller(kRows, t.queries - first);
    lay_tables(t, first, rows, s);
    for (int64_t r = 0; r < rows; ++r) {
      const float* q = LagRow{t, first + r}.q();
      s.of_queries[r] = dot(q, q, t.key_dim);
      start_row(s.running[r], o + r * o_stride, t.value_dim);
    }
    int64_t from = 0;  // the rows that see something of the block
    for (int64_t key = 0; key < LagRow{t, first + rows - 1}.end(); key += kKeys) {
      while (LagRow{t, first + from}.end() <= key) ++from;
      add_block(t, first + from, rows - from, key, s.b + key + rows - 1 - from, o + from * o_stride, o_stride,
                s.running + from, s.of_queries + from, s);
    }
    for (int64_t r = 0; r < rows; ++r)
      if (s.running[r].total != 0) scale_row(o + r * o_stride, 1 / s.running[r].total, t.value_dim);
  }
}

// The gradients of one pair's weight, dw, to what it is made of.
SENNIT_INLINE void pair_back(const LagRow& row, int64_t j, float w, float dw, const LagAttention::Gradients& into) {
  const LagAttentionTask& t = row.t;
  const int64_t at = row.place(j);
  const float *q = row.q(), *k = row.k(j);
  float *dq = into.q + row.i * t.q_stride, *dk = into.k + j * t.k_stride;
  if (t.rule == LagRule::softmax) {
    const float ds = dw * w;
    into.b[at] += ds;
    add_scaled(t.scale * ds, k, dq, t.key_dim);
    add_scaled(t.scale * ds, q, dk, t.key_dim);
    return;
  }
  const float gain = t.g[at], b = t.b[at], ds = dw * w;
  if (t.rule == LagRule::robust)
    into.b[at] -= ds * w;
  else
    into.b[at] += ds * (t.scale * apart(row, j, gain) / b - 1) / b;
  const vf slope = set(-2 * t.scale * ds * (t.rule == LagRule::robust ? w : 1 / b)), g = set(gain);
  vf along = zero();
  for_lanes(t.key_dim, [&](int64_t l, int64_t lanes) {
    const vf key = load_n(k + l, lanes), s = slope * fnma(g, key, load_n(q + l, lanes));
    add_n(dq + l, s, lanes);
    add_n(dk + l, -(g * s), lanes);
    along = fma(s, key, along);
  });
  into.g[at] -= sum(along);
}

void backward(const LagAttentionTask& t, const float* d_o, int64_t o_stride, const LagAttention::Gradients& into,
              float* scratch) {
  float* const values = scratch + t.keys;  // d_o . v_j
  for (int64_t i = 0; i < t.queries; ++i) {
    const LagRow row{t, i};
    const int64_t end = row.end();
    if (end == 0) continue;
    const float* g = d_o + i * o_stride;
    const float total = weigh(row, scratch);
    float said = 0;  // d_o . o
    for (int64_t j = 0; j < end; ++j) {
      values[j] = dot(g, row.v(j), t.value_dim);
      said += scratch[j] / total * t.g[row.place(j)] * values[j];
    }
    for (int64_t j = 0; j < end; ++j) {
      const float share = scratch[j] / total, gain = t.g[row.place(j)], value = values[j];
      add_scaled(share * gain, g, into.v + j * t.v_stride, t.value_dim);
      into.g[row.place(j)] += share * value;
      const bool normalised = t.rule != LagRule::robust;
      pair_back(row, j, normalised ? share : scratch[j],
                normalised ? gain * value - said : (gain * value - said) / total, into);
    }
  }
}

}  // namespace

const LagAttention lag_attention_table = {.scratch_floats = scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
