#pragma once
// The backward pass of bf16 attention.
// Use only from src/kernels/paired_attention.cpp.
#include "kernels/paired_parts.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// Every query packed as columns for scores and dw (q, do) and as sums by them (q, do); then one tile's products.
struct BackwardScratch {
  float *queries, *d_columns, *query_sums, *d_sums;  // a tile after the other
  float *weights, *slopes, *packed;                  // [kKeys, kQueries] twice; one of them packed
  float *dq, *dk, *dv;                               // [tiles, key_dim, kQueries]; [kKeys, key_dim], [kKeys, value_dim]
  float *stat, *delta, *scales;                      // [tiles, kQueries], in powers of two; do_i . o_i; [kQueries]
  Seen seen;
  int64_t tiles, q_floats, d_floats, qs_floats, ds_floats;  // of a tile
  BackwardScratch(const AttentionTask& t, float* scratch)
      : tiles((t.queries + kQueries - 1) / kQueries),
        q_floats(panel_floats(t.key_dim, kQueries)),
        d_floats(panel_floats(t.value_dim, kQueries)),
        qs_floats(panel_floats(kQueries, t.key_dim)),
        ds_floats(panel_floats(kQueries, t.value_dim)) {
    queries = scratch, d_columns = queries + tiles * q_floats;
    query_sums = d_columns + tiles * d_floats, d_sums = query_sums + tiles * qs_floats;
    weights = d_sums + tiles * ds_floats, slopes = weights + kQueries * kKeys, packed = slopes + kQueries * kKeys;
    dq = packed + panel_floats(kKeys, kQueries), dk = dq + tiles * kQueries * t.key_dim;
    dv = dk + kKeys * t.key_dim, stat = dv + kKeys * t.value_dim, delta = stat + tiles * kQueries;
    scales = delta + tiles * kQueries, seen = {scales + kQueries, scales + 2 * kQueries};
  }
  int64_t floats() const { return seen.late + kQueries - queries; }
};
int64_t backward_floats(const AttentionTask& t) {
  float none = 0;
  return BackwardScratch(t, &none).floats();
}

void pack_queries(const AttentionTask& t, const PanelKernels& panels, const float* d_o, int64_t o_stride,
                  const BackwardScratch& s) {
  for (int64_t tile = 0; tile < s.tiles; ++tile) {
    const int64_t i = tile * kQueries, rows = smaller(kQueries, t.queries - i);
    const float *q = t.q + i * t.q_stride, *d = d_o + i * o_stride;
    pack_columns(panels, q, t.q_stride, false, rows, kQueries, t.key_dim, s.queries + tile * s.q_floats);
    pack_columns(panels, d, o_stride, false, rows, kQueries, t.value_dim, s.d_columns + tile * s.d_floats);
    pack_columns(panels, q, t.q_stride, true, t.key_dim, whole_panels(t.key_dim), rows, s.query_sums + tile * s.qs_floats);
    pack_columns(panels, d, o_stride, true, t.value_dim, whole_panels(t.value_dim), rows, s.d_sums + tile * s.ds_floats);
  }
}

// Products k . q and v . do of the lanes from c become w and ds, the latter as pairs too; what ds is summed to is scaled.
template <Look kLook>
void weigh_slopes(const AttentionTask& t, QueryTile tile, int64_t first_key, int64_t count, const BackwardScratch& s,
                  int64_t c) {
  const LaneScores<kLook> scores(t, s.weights, s.seen, tile, first_key, c);
  const vf stat = load(s.stat + tile.first + c), delta = load(s.delta + tile.first + c);
  const auto slope = [&](int64_t j) __attribute__((always_inline)) {
    if (j >= count) return zero();
    float *weight = s.weights + j * kQueries + c, *ds = s.slopes + j * kQueries + c;
    const vf w = short_exp2(scores.at(j, stat)), d = w * (load(ds) - delta);
    store(weight, w);
    store(ds, d);
    return d;
  };
  const int64_t depth = depth_of(count);
  for (int64_t u = 0; u < depth; ++u) {
    const vf even = slope(2 * u), odd = slope(2 * u + 1);
    store(unit_at(s.packed, depth, u, c), pair(even, odd));
  }
}

// A tile of queries against a block of keys.
void backward_tile(const AttentionTask& t, const PanelKernels& panels, const PackedBlock& block, int64_t first,
                   int64_t first_key, const BackwardScratch& s) {
  const QueryTile tile{first, smaller(kQueries, t.queries - first)};
  const int64_t at = first / kQueries, lanes = tile.lanes(), count = smaller(kKeys, t.keys - first_key);
  const auto multiply = [&](auto... factors) { multiply_packed(panels, factors...); };
  multiply(block.score_keys, s.queries + at * s.q_floats, s.weights, kQueries, count, lanes, t.key_dim, false);
  multiply(block.values, s.d_columns + at * s.d_floats, s.slopes, kQueries, count, lanes, t.value_dim, false);
  with_look(look_at(t, s.seen.find(t, tile, first_key)), [&]<Look kLook>() {
    for (int64_t c = 0; c < lanes; c += kLanes) weigh_slopes<kLook>(t, tile, first_key, count, s, c);
  });
  multiply(block.summed_keys, s.packed, s.dq + at * t.key_dim * kQueries, kQueries, t.key_dim, lanes, count, true);
  pack_rows(panels, s.weights, kQueries, false, count, tile.rows, s.packed);
  multiply(s.packed, s.d_sums + at * s.ds_floats, s.dv, t.value_dim, count, t.value_dim, tile.rows, true);
  pack_rows(panels, s.slopes, kQueries, false, count, tile.rows, s.packed);
  multiply(s.packed, s.query_sums + at * s.qs_floats, s.dk, t.key_dim, count, t.key_dim, tile.rows, true);
}

// y += factor x
void add_rows(const float* x, float factor, int64_t rows, int64_t width, float* y, int64_t y_stride) {
  for (int64_t i = 0; i < rows; ++i) add_scaled(factor, x + i * width, y + i * y_stride, width);
}
// do . o, of do as it is multiplied: what cancels in dw - do . o then does so to the last bit.
float row_delta(const float* d_o, const float* o, int64_t n) {
  vf s = zero();
  for_lanes(n, [&](int64_t i, int64_t m) { s = fma(rounded_to_bf16(load_n(d_o + i, m)), load_n(o + i, m), s); });
  return sum(s);
}

void backward(const AttentionTask& t, const PanelKernels& panels, const float* packed, const float* o, const float* d_o,
              int64_t o_stride, const float* stat, float* dq, float* dk, float* dv, int64_t dq_stride,
              int64_t dk_stride, int64_t dv_stride, float* scratch) {
  const BackwardScratch s(t, scratch);
  const PackedSizes sizes(t, true);
  pack_queries(t, panels, d_o, o_stride, s);
  fill(s.dq, s.tiles * kQueries * t.key_dim, 0);
  fill(s.stat, 2 * s.tiles * kQueries, 0), fill(s.scales, kQueries, t.scale);
  for (int64_t i = 0; i < t.queries; ++i) {
    s.stat[i] = stat[i] == kNothing ? 0 : stat[i] * kPowersInE;
    s.delta[i] = row_delta(d_o + i * o_stride, o + i * o_stride, t.value_dim);
  }
  for (int64_t j = 0; j < t.keys; j += kKeys) {
    const int64_t count = smaller(kKeys, t.keys - j);
    fill(s.dk, kKeys * t.key_dim, 0), fill(s.dv, kKeys * t.value_dim, 0);
    const int64_t begin = t.causal ? larger(0, j - t.offset) / kQueries * kQueries : 0;
    const int64_t end = t.window > 0 ? smaller(t.queries, j + count - 1 - t.offset + t.window) : t.queries;
    for (int64_t i = begin; i < end; i += kQueries) backward_tile(t, panels, {sizes, packed, j}, i, j, s);
    add_rows(s.dk, t.scale, count, t.key_dim, dk + j * dk_stride, dk_stride);
    add_rows(s.dv, 1, count, t.value_dim, dv + j * dv_stride, dv_stride);
  }
  for (int64_t i = 0; i < t.queries; i += kQueries)
    put_rows<true>(s.dq + i * t.key_dim, s.scales, {i, smaller(kQueries, t.queries - i)}, t.key_dim, dq + i * dq_stride,
                   dq_stride);
  panels.done();
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
