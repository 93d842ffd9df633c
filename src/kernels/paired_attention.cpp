#include "kernels/paired_attention.h"

#include "kernels/attention_tile.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

static_assert(kPairedKeys == kKeys);
constexpr int64_t kQueries = kPairedQueries;

int64_t depth_of(int64_t k) { return paired_depth(k, kPairedMultiple); }
int64_t whole_panels(int64_t n) { return (n + kPanelColumns - 1) / kPanelColumns * kPanelColumns; }
// Floats of a right factor of k by n in panels; a left factor of n by k takes no more.
int64_t panel_floats(int64_t k, int64_t n) { return whole_panels(n) * depth_of(k); }

// A right factor: element (p, i) is x[i * stride + p], or x[p * stride + i] when k_major; zeros up to `columns`.
void pack_columns(const PanelKernels& panels, const float* x, int64_t stride, bool k_major, int64_t n, int64_t columns,
                  int64_t k, float* out) {
  for (int64_t i = 0; i < columns; i += kPanelColumns)
    panels.pack_b(x + smaller(i, n) * (k_major ? 1 : stride), stride, k_major, larger(0, smaller(kPanelColumns, n - i)), k,
                  out + i * depth_of(k));
}
// A left factor: element (i, p) is x[i * stride + p], or x[p * stride + i] when k_major.
void pack_rows(const PanelKernels& panels, const float* x, int64_t stride, bool k_major, int64_t rows, int64_t k,
               float* out) {
  const int64_t height = panels.panel_rows(rows);
  for (int64_t i = 0; i < rows; i += height)
    panels.pack_a(x + i * (k_major ? 1 : stride), stride, k_major, smaller(height, rows - i), k, out + i * depth_of(k));
}
// c[rows, columns] (=|+=) a b, rows of c close together.
void multiply_packed(const PanelKernels& panels, const float* a, const float* b, float* c, int64_t rows, int64_t columns,
                     int64_t k, bool accumulate) {
  panels.multiply({.a = a,
                   .b = b,
                   .m = rows,
                   .n = columns,
                   .a_rows = panels.panel_rows(rows),
                   .depth = depth_of(k),
                   .c = c,
                   .c_stride = columns,
                   .accumulate = accumulate,
                   .bias = nullptr});
}

// What is packed of a block of keys: k as columns of scores, and either v to be summed by weights, or for the gradients
// v as columns of dw and k to be summed by ds.
struct PackedSizes {
  int64_t score_keys, values, whole;
  PackedSizes(const AttentionTask& t, bool for_backward)
      : score_keys(panel_floats(t.key_dim, kKeys)),
        values(for_backward ? panel_floats(t.value_dim, kKeys) : panel_floats(kKeys, t.value_dim)),
        whole(score_keys + values + (for_backward ? panel_floats(kKeys, t.key_dim) : 0)) {}
};
struct PackedBlock {
  const float *score_keys, *values, *summed_keys;
  PackedBlock(const PackedSizes& sizes, const float* packed, int64_t first_key)
      : score_keys(packed + first_key / kKeys * sizes.whole),
        values(score_keys + sizes.score_keys),
        summed_keys(values + sizes.values) {}
};

int64_t packed_floats(const AttentionTask& t, bool for_backward) {
  return (t.keys + kKeys - 1) / kKeys * PackedSizes(t, for_backward).whole;
}

void pack(const AttentionTask& t, const PanelKernels& panels, bool for_backward, int64_t begin, int64_t end,
          float* packed) {
  const PackedSizes sizes(t, for_backward);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t j = block * kKeys, count = smaller(kKeys, t.keys - j);
    const float *k = static_cast<const float*>(t.k) + j * t.k_stride, *v = static_cast<const float*>(t.v) + j * t.v_stride;
    float *score_keys = packed + block * sizes.whole, *values = score_keys + sizes.score_keys;
    pack_columns(panels, k, t.k_stride, false, count, kKeys, t.key_dim, score_keys);
    if (!for_backward) {
      pack_columns(panels, v, t.v_stride, true, t.value_dim, whole_panels(t.value_dim), count, values);
      continue;
    }
    pack_columns(panels, v, t.v_stride, false, count, kKeys, t.value_dim, values);
    pack_columns(panels, k, t.k_stride, true, t.key_dim, whole_panels(t.key_dim), count, values + sizes.values);
  }
}

Scores scores_of(const AttentionTask& t, int64_t query, int64_t first_key) {
  return {t.scale, t.alibi, kNothing, query + t.offset - first_key, seen_of_block(t, query, first_key)};
}

// Zeros where a row of a block has no weights.
void clear_unseen(const Range& seen, float* row) {
  const int64_t first = smaller(seen.begin / kLanes * kLanes, kKeys);
  const int64_t end = seen.begin < seen.end ? (seen.end + kLanes - 1) / kLanes * kLanes : first;
  for (int64_t j = 0; j < first; j += kLanes) store(row + j, zero());
  for (int64_t j = end; j < kKeys; j += kLanes) store(row + j, zero());
}

struct ForwardScratch {
  float *queries, *scores, *weights, *sums;  // packed; [kQueries, kKeys]; packed; [kQueries, value_dim]
  Running* running;                          // [kQueries]
  ForwardScratch(const AttentionTask& t, float* scratch)
      : queries(scratch),
        scores(queries + panel_floats(t.key_dim, kQueries)),
        weights(scores + kQueries * kKeys),
        sums(weights + panel_floats(kKeys, kQueries)),
        running(reinterpret_cast<Running*>(sums + kQueries * t.value_dim)) {}
};
int64_t forward_floats(const AttentionTask& t) {
  return panel_floats(t.key_dim, kQueries) + kQueries * kKeys + panel_floats(kKeys, kQueries) +
         kQueries * (t.value_dim + 2);
}

void forward_tile(const AttentionTask& t, const PanelKernels& panels, const float* packed, int64_t first, int64_t rows,
                  const ForwardScratch& s) {
  const PackedSizes sizes(t, false);
  pack_rows(panels, t.q + first * t.q_stride, t.q_stride, false, rows, t.key_dim, s.queries);
  for (int64_t r = 0; r < rows; ++r) s.running[r] = {kNothing, 0};
  for (int64_t i = 0; i < rows * t.value_dim; ++i) s.sums[i] = 0;
  const int64_t end = seen(t, first + rows - 1).end;
  for (int64_t j = seen(t, first).begin / kKeys * kKeys; j < end; j += kKeys) {
    const PackedBlock block(sizes, packed, j);
    const int64_t count = smaller(kKeys, t.keys - j);
    multiply_packed(panels, s.queries, block.score_keys, s.scores, rows, kKeys, t.key_dim, false);
    for (int64_t r = 0; r < rows; ++r) {
      const Scores scores = scores_of(t, first + r, j);
      float* row = s.scores + r * kKeys;
      weigh_exponentials(scores, row, s.running[r], s.sums + r * t.value_dim, t.value_dim);
      clear_unseen(scores.range, row);
    }
    pack_rows(panels, s.scores, kKeys, false, rows, count, s.weights);
    multiply_packed(panels, s.weights, block.values, s.sums, rows, t.value_dim, count, true);
  }
}

void forward(const AttentionTask& t, const PanelKernels& panels, const float* packed, int64_t begin, int64_t end,
             float* o, int64_t o_stride, float* stat, float* scratch) {
  const ForwardScratch s(t, scratch);
  for (int64_t first = begin; first < end; first += kQueries) {
    const int64_t rows = smaller(kQueries, end - first);
    forward_tile(t, panels, packed, first, rows, s);
    for (int64_t r = 0; r < rows; ++r) {
      const float total = s.running[r].total;
      const vf factor = set(total == 0 ? 0 : 1 / total);
      float* row = o + (first + r) * o_stride;
      for_lanes(t.value_dim, [&](int64_t i, int64_t n) {
        store_n(row + i, load_n(s.sums + r * t.value_dim + i, n) * factor, n);
      });
      stat[first + r] = log_sum(s.running[r]);
    }
  }
}

// Every query packed as rows for scores and dw (q, do) and as sums by them (q, do); then one tile's products.
struct BackwardScratch {
  float *queries, *d_rows, *query_sums, *d_sums;  // a tile after the other
  float *weights, *slopes, *packed;               // [kQueries, kKeys] twice; one of them packed
  float *dq, *dk, *dv;                            // [queries, key_dim]; [kKeys, key_dim], [kKeys, value_dim]
  float* delta;                                   // [queries]: do_i . o_i
  int64_t q_floats, d_floats, qs_floats, ds_floats;  // of a tile
  BackwardScratch(const AttentionTask& t, float* scratch)
      : q_floats(panel_floats(t.key_dim, kQueries)),
        d_floats(panel_floats(t.value_dim, kQueries)),
        qs_floats(panel_floats(kQueries, t.key_dim)),
        ds_floats(panel_floats(kQueries, t.value_dim)) {
    const int64_t tiles = (t.queries + kQueries - 1) / kQueries;
    queries = scratch, d_rows = queries + tiles * q_floats;
    query_sums = d_rows + tiles * d_floats, d_sums = query_sums + tiles * qs_floats;
    weights = d_sums + tiles * ds_floats, slopes = weights + kQueries * kKeys, packed = slopes + kQueries * kKeys;
    dq = packed + panel_floats(kKeys, kQueries), dk = dq + t.queries * t.key_dim;
    dv = dk + kKeys * t.key_dim, delta = dv + kKeys * t.value_dim;
  }
  int64_t floats(const AttentionTask& t) const { return delta + t.queries - queries; }
};
int64_t backward_floats(const AttentionTask& t) {
  float none = 0;
  return BackwardScratch(t, &none).floats(t);
}

void pack_queries(const AttentionTask& t, const PanelKernels& panels, const float* d_o, int64_t o_stride,
                  const BackwardScratch& s) {
  for (int64_t i = 0, tile = 0; i < t.queries; i += kQueries, ++tile) {
    const int64_t rows = smaller(kQueries, t.queries - i);
    const float *q = t.q + i * t.q_stride, *d = d_o + i * o_stride;
    pack_rows(panels, q, t.q_stride, false, rows, t.key_dim, s.queries + tile * s.q_floats);
    pack_rows(panels, d, o_stride, false, rows, t.value_dim, s.d_rows + tile * s.d_floats);
    pack_columns(panels, q, t.q_stride, true, t.key_dim, whole_panels(t.key_dim), rows, s.query_sums + tile * s.qs_floats);
    pack_columns(panels, d, o_stride, true, t.value_dim, whole_panels(t.value_dim), rows, s.d_sums + tile * s.ds_floats);
  }
}

// Rows of products q . k and do . v become rows of w and of ds times scale.
void weigh_slopes(const AttentionTask& t, int64_t first, int64_t rows, int64_t first_key, const float* stat,
                  const BackwardScratch& s) {
  for (int64_t r = 0; r < rows; ++r) {
    const Scores scores = scores_of(t, first + r, first_key);
    const vf base = set(stat[first + r] == kNothing ? 0 : stat[first + r]), delta = set(s.delta[first + r]);
    float *weights = s.weights + r * kKeys, *slopes = s.slopes + r * kKeys;
    for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
      const vf w = exp(scores.at(weights, j) - base);
      store(weights + j, w);
      store(slopes + j, w * (load(slopes + j) - delta) * set(t.scale));
    }
    clear_unseen(scores.range, weights);
    clear_unseen(scores.range, slopes);
  }
}

// A tile of queries against a block of keys.
void backward_tile(const AttentionTask& t, const PanelKernels& panels, const PackedBlock& block, int64_t first,
                   int64_t first_key, const float* stat, const BackwardScratch& s) {
  const int64_t tile = first / kQueries, rows = smaller(kQueries, t.queries - first);
  const int64_t count = smaller(kKeys, t.keys - first_key);
  multiply_packed(panels, s.queries + tile * s.q_floats, block.score_keys, s.weights, rows, kKeys, t.key_dim, false);
  multiply_packed(panels, s.d_rows + tile * s.d_floats, block.values, s.slopes, rows, kKeys, t.value_dim, false);
  weigh_slopes(t, first, rows, first_key, stat, s);
  pack_rows(panels, s.weights, kKeys, true, count, rows, s.packed);
  multiply_packed(panels, s.packed, s.d_sums + tile * s.ds_floats, s.dv, count, t.value_dim, rows, true);
  pack_rows(panels, s.slopes, kKeys, true, count, rows, s.packed);
  multiply_packed(panels, s.packed, s.query_sums + tile * s.qs_floats, s.dk, count, t.key_dim, rows, true);
  pack_rows(panels, s.slopes, kKeys, false, rows, count, s.packed);
  multiply_packed(panels, s.packed, block.summed_keys, s.dq + first * t.key_dim, rows, t.key_dim, count, true);
}

void add_rows(const float* x, int64_t rows, int64_t width, float* y, int64_t y_stride) {
  for (int64_t i = 0; i < rows; ++i)
    for_lanes(width, [&](int64_t c, int64_t n) { add_n(y + i * y_stride + c, load_n(x + i * width + c, n), n); });
}
// do . o, of do as it is multiplied: what cancels in dw - do . o then does so to the last bit.
float row_delta(const float* d_o, const float* o, int64_t n) {
  vf s = zero();
  for_lanes(n, [&](int64_t i, int64_t m) { s = fma(rounded_to_bf16(load_n(d_o + i, m)), load_n(o + i, m), s); });
  return sum(s);
}
void clear(float* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(x + i, zero(), m); });
}

void backward(const AttentionTask& t, const PanelKernels& panels, const float* packed, const float* o, const float* d_o,
              int64_t o_stride, const float* stat, float* dq, float* dk, float* dv, int64_t dq_stride,
              int64_t dk_stride, int64_t dv_stride, float* scratch) {
  const BackwardScratch s(t, scratch);
  const PackedSizes sizes(t, true);
  pack_queries(t, panels, d_o, o_stride, s);
  clear(s.dq, t.queries * t.key_dim);
  for (int64_t i = 0; i < t.queries; ++i) s.delta[i] = row_delta(d_o + i * o_stride, o + i * o_stride, t.value_dim);
  for (int64_t j = 0; j < t.keys; j += kKeys) {
    const int64_t count = smaller(kKeys, t.keys - j);
    clear(s.dk, kKeys * t.key_dim), clear(s.dv, kKeys * t.value_dim);
    const int64_t begin = t.causal ? larger(0, j - t.offset) / kQueries * kQueries : 0;
    const int64_t end = t.window > 0 ? smaller(t.queries, j + count - 1 - t.offset + t.window) : t.queries;
    for (int64_t i = begin; i < end; i += kQueries) backward_tile(t, panels, {sizes, packed, j}, i, j, stat, s);
    add_rows(s.dk, count, t.key_dim, dk + j * dk_stride, dk_stride);
    add_rows(s.dv, count, t.value_dim, dv + j * dv_stride, dv_stride);
  }
  add_rows(s.dq, t.queries, t.key_dim, dq, dq_stride);
}

}  // namespace

const PairedAttention paired_attention_table = {.packed_floats = packed_floats,
                                                .pack = pack,
                                                .forward_floats = forward_floats,
                                                .backward_floats = backward_floats,
                                                .forward = forward,
                                                .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
