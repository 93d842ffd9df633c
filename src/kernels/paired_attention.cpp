#include "kernels/paired_attention.h"

#include "kernels/attention_tile.h"
#include "kernels/paired_factors.h"
#include "kernels/transpose.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// Scores stand as [keys][queries], a query in a lane: maxima and sums over keys are then lane by lane, two neighbouring
// rows of weights are a row of pairs of the right factor in o^T = v^T w^T, and of the gradients' rows nothing is
// transposed either. They are in powers of two, weights 2^(s - top).
static_assert(kPairedKeys == kKeys);
constexpr int64_t kQueries = kPairedQueries;

// What is packed of a block of keys, all as left factors: the rows of k for scores, and either v^T to be summed by
// weights, or for the gradients the rows of v for dw and k^T to be summed by ds.
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
    pack_rows(panels, k, t.k_stride, false, count, t.key_dim, score_keys);
    pack_rows(panels, v, t.v_stride, !for_backward, for_backward ? count : t.value_dim,
              for_backward ? t.value_dim : count, values);
    if (for_backward) pack_rows(panels, k, t.k_stride, true, t.key_dim, count, values + sizes.values);
  }
}

// A tile of queries: `rows` of them from `first`, in the lanes of whole panels.
struct QueryTile {
  int64_t first, rows;
  int64_t lanes() const { return whole_panels(rows); }
};

// The part of a block of keys that each query of a tile sees, [kQueries] places within the block; a lane without a
// query sees nothing.
struct Seen {
  float *early, *late;
  // Returns whether every query sees the whole block; only if not, the places are written.
  bool find(const AttentionTask& t, QueryTile tile, int64_t first_key) const {
    const Range top = seen_of_block(t, tile.first, first_key),
                bottom = seen_of_block(t, tile.first + tile.rows - 1, first_key);
    if (t.block == 0 && bottom.begin == 0 && top.end == kKeys) return true;  // both ends grow from query to query
    for (int64_t r = 0; r < kQueries; ++r) {
      const Range seen = r < tile.rows ? seen_of_block(t, tile.first + r, first_key) : Range{0, 0};
      early[r] = static_cast<float>(seen.begin), late[r] = static_cast<float>(seen.end);
    }
    return false;
  }
};

constexpr float kPowersInE = 1.44269504088896341f, kOfOnePower = 0.693147180559945309f;

// What scores of a block are beyond scaled products: nothing; with a bias of distance; or that, and -inf where a query
// does not see a key.
enum class Look { plain, biased, masked };
Look look_at(const AttentionTask& t, bool whole) {
  return !whole ? Look::masked : t.alibi != 0 ? Look::biased : Look::plain;
}

// Scores of the queries in the lanes from c, of a block's keys.
template <Look kLook>
struct LaneScores {
  const float* products;  // [kKeys, kQueries]
  vf scale, alibi, distance, early, late;
  LaneScores(const AttentionTask& t, const float* block_products, const Seen& seen, QueryTile tile, int64_t first_key,
             int64_t c)
      : products(block_products + c), scale(set(t.scale * kPowersInE)), alibi(set(t.alibi * kPowersInE)) {
    float places[kLanes];
    for (int i = 0; i < kLanes; ++i) places[i] = static_cast<float>(tile.first + c + i + t.offset - first_key);
    distance = load(places);
    if (kLook == Look::masked) early = load(seen.early + c), late = load(seen.late + c);
  }
  // Less `base`.
  SENNIT_INLINE vf at(int64_t j, vf base) const {
    const vf s = fma(load(products + j * kQueries), scale, -base);
    if constexpr (kLook == Look::plain) return s;
    const vf key = set(static_cast<float>(j)), biased = fnma(alibi, abs(distance - key), s);
    if constexpr (kLook == Look::biased) return biased;
    return select(less(key, early), set(kNothing), select(less(key, late), biased, set(kNothing)));
  }
};

struct ForwardScratch {
  float *queries, *scores, *weights, *sums;  // packed; [kKeys, kQueries]; packed; [value_dim, kQueries]
  float *top, *total;                        // [kQueries]: what weights are taken against, and their sum
  Seen seen;
  ForwardScratch(const AttentionTask& t, float* scratch)
      : queries(scratch),
        scores(queries + panel_floats(t.key_dim, kQueries)),
        weights(scores + kKeys * kQueries),
        sums(weights + panel_floats(kKeys, kQueries)),
        top(sums + t.value_dim * kQueries),
        total(top + kQueries),
        seen{total + kQueries, total + 2 * kQueries} {}
};
int64_t forward_floats(const AttentionTask& t) {
  return panel_floats(t.key_dim, kQueries) + kKeys * kQueries + panel_floats(kKeys, kQueries) +
         (t.value_dim + 4) * kQueries;
}

// The pairs of row u of a right factor with kQueries columns, from lane c.
SENNIT_INLINE float* pairs_at(float* panel, int64_t depth, int64_t u, int64_t c) {
  return panel + c / kPanelColumns * kPanelColumns * depth + u * kPanelColumns + c % kPanelColumns;
}

// Brings what was summed for the lanes from c to `top`, where that is more than 2^kSlack above what weights are taken
// against: until then they are but larger than 1.
constexpr float kSlack = 8;
void raise(const AttentionTask& t, const ForwardScratch& s, int64_t c, vf top) {
  const vf before = load(s.top + c);
  const vmask grown = less(before + set(kSlack), top);
  if (highest(select(grown, set(1), zero())) == 0) return;
  const vf shrink = select(grown, exp2(before - top), set(1));
  store(s.top + c, select(grown, top, before));
  store(s.total + c, load(s.total + c) * shrink);
  for (int64_t i = 0; i < t.value_dim; ++i) {
    float* place = s.sums + i * kQueries + c;
    store(place, load(place) * shrink);
  }
}

// Weights of the lanes from c, two vectors abreast, from the products of a block.
template <Look kLook>
void weigh_lanes(const AttentionTask& t, QueryTile tile, int64_t first_key, int64_t count, const ForwardScratch& s,
                 int64_t c) {
  const LaneScores<kLook> left(t, s.scores, s.seen, tile, first_key, c),
      right(t, s.scores, s.seen, tile, first_key, c + kLanes);
  const int64_t depth = depth_of(count);
  vf tops[2] = {load(s.top + c), load(s.top + c + kLanes)}, odd_tops[2] = {tops[0], tops[1]};
  for (int64_t u = 0; u < depth; ++u) {
    tops[0] = max(tops[0], left.at(2 * u, zero())), odd_tops[0] = max(odd_tops[0], left.at(2 * u + 1, zero()));
    tops[1] = max(tops[1], right.at(2 * u, zero())), odd_tops[1] = max(odd_tops[1], right.at(2 * u + 1, zero()));
  }
  vf totals[2] = {zero(), zero()}, odd_totals[2] = {zero(), zero()}, base[2];
  for (int v = 0; v < 2; ++v) {
    raise(t, s, c + v * kLanes, max(tops[v], odd_tops[v]));
    const vf top = load(s.top + c + v * kLanes);
    base[v] = select(less(set(kNothing), top), top, zero());
  }
  for (int64_t u = 0; u < depth; ++u)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const LaneScores<kLook>& scores = v == 0 ? left : right;
      const vf even = exp2(scores.at(2 * u, base[v])), odd = exp2(scores.at(2 * u + 1, base[v]));
      totals[v] = totals[v] + even, odd_totals[v] = odd_totals[v] + odd;
      store(pairs_at(s.weights, depth, u, c + v * kLanes), pair(even, odd));
    }
  for (int v = 0; v < 2; ++v) {
    float* total = s.total + c + v * kLanes;
    store(total, load(total) + (totals[v] + odd_totals[v]));
  }
}

// Calls body.template operator()<look>().
template <class Body>
SENNIT_INLINE void with_look(Look look, const Body& body) {
  switch (look) {
    case Look::plain:
      return body.template operator()<Look::plain>();
    case Look::biased:
      return body.template operator()<Look::biased>();
    case Look::masked:
      return body.template operator()<Look::masked>();
  }
}

void forward_tile(const AttentionTask& t, const PanelKernels& panels, const float* packed, QueryTile tile,
                  const ForwardScratch& s) {
  const PackedSizes sizes(t, false);
  const int64_t lanes = tile.lanes();
  pack_columns(panels, t.q + tile.first * t.q_stride, t.q_stride, false, tile.rows, lanes, t.key_dim, s.queries);
  for (int64_t c = 0; c < kQueries; ++c) s.top[c] = kNothing, s.total[c] = 0;
  for (int64_t i = 0; i < t.value_dim * kQueries; ++i) s.sums[i] = 0;
  const int64_t end = seen(t, tile.first + tile.rows - 1).end;
  for (int64_t j = seen(t, tile.first).begin / kKeys * kKeys; j < end; j += kKeys) {
    const PackedBlock block(sizes, packed, j);
    const int64_t count = smaller(kKeys, t.keys - j);
    multiply_packed(panels, block.score_keys, s.queries, s.scores, kQueries, count, lanes, t.key_dim, false);
    with_look(look_at(t, s.seen.find(t, tile, j)), [&]<Look kLook>() {
      for (int64_t c = 0; c < lanes; c += 2 * kLanes) weigh_lanes<kLook>(t, tile, j, count, s, c);
    });
    multiply_packed(panels, block.values, s.weights, s.sums, kQueries, t.value_dim, lanes, count, true);
  }
}

// y[r][i] (=|+=) by[r] x[i][r] for the rows of a tile, where x is [width, kQueries].
template <bool kAdd>
void put_rows(const float* x, const float* by, QueryTile tile, int64_t width, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < tile.rows; r += kLanes)
    for (int64_t i = 0; i < width; i += kLanes) {
      vf square[kLanes];
      for (int l = 0; l < kLanes; ++l)
        square[l] = i + l < width ? load(x + (i + l) * kQueries + r) * load(by + r) : zero();
      transpose(square);
      for (int l = 0; l < kLanes && r + l < tile.rows; ++l) {
        float* place = y + (r + l) * y_stride + i;
        store_some(place, kAdd ? load_some(place, width - i) + square[l] : square[l], width - i);
      }
    }
}

void forward(const AttentionTask& t, const PanelKernels& panels, const float* packed, int64_t begin, int64_t end,
             float* o, int64_t o_stride, float* stat, float* scratch) {
  const ForwardScratch s(t, scratch);
  for (int64_t first = begin; first < end; first += kQueries) {
    const QueryTile tile{first, smaller(kQueries, end - first)};
    forward_tile(t, panels, packed, tile, s);
    for (int64_t r = 0; r < tile.rows; r += kLanes) {
      const vf total = load(s.total + r);
      store_some(stat + first + r, fma(load(s.top + r), set(kOfOnePower), log(total)), tile.rows - r);
      store(s.total + r, select(less(zero(), total), set(1) / total, zero()));
    }
    put_rows<false>(s.sums, s.total, tile, t.value_dim, o + first * o_stride, o_stride);
  }
}

// Every query packed as columns for scores and dw (q, do) and as sums by them (q, do); then one tile's products.
struct BackwardScratch {
  float *queries, *d_columns, *query_sums, *d_sums;  // a tile after the other
  float *weights, *slopes, *packed;                  // [kKeys, kQueries] twice; one of them packed
  float *dq, *dk, *dv;                               // [tiles, key_dim, kQueries]; [kKeys, key_dim], [kKeys, value_dim]
  float *stat, *delta, *ones;                        // [tiles, kQueries], in powers of two; do_i . o_i; [kQueries]
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
    ones = delta + tiles * kQueries, seen = {ones + kQueries, ones + 2 * kQueries};
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

// Products k . q and v . do of the lanes from c become w and scale ds, the latter as pairs too.
template <Look kLook>
void weigh_slopes(const AttentionTask& t, QueryTile tile, int64_t first_key, int64_t count, const BackwardScratch& s,
                  int64_t c) {
  const LaneScores<kLook> scores(t, s.weights, s.seen, tile, first_key, c);
  const vf stat = load(s.stat + tile.first + c), delta = load(s.delta + tile.first + c), scale = set(t.scale);
  const auto slope = [&](int64_t j) __attribute__((always_inline)) {
    if (j >= count) return zero();
    float *weight = s.weights + j * kQueries + c, *ds = s.slopes + j * kQueries + c;
    const vf w = exp2(scores.at(j, stat)), d = w * (load(ds) - delta) * scale;
    store(weight, w);
    store(ds, d);
    return d;
  };
  const int64_t depth = depth_of(count);
  for (int64_t u = 0; u < depth; ++u) {
    const vf even = slope(2 * u), odd = slope(2 * u + 1);
    store(pairs_at(s.packed, depth, u, c), pair(even, odd));
  }
}

// A tile of queries against a block of keys.
void backward_tile(const AttentionTask& t, const PanelKernels& panels, const PackedBlock& block, int64_t first,
                   int64_t first_key, const BackwardScratch& s) {
  const QueryTile tile{first, smaller(kQueries, t.queries - first)};
  const int64_t at = first / kQueries, lanes = tile.lanes(), count = smaller(kKeys, t.keys - first_key);
  multiply_packed(panels, block.score_keys, s.queries + at * s.q_floats, s.weights, kQueries, count, lanes, t.key_dim,
                  false);
  multiply_packed(panels, block.values, s.d_columns + at * s.d_floats, s.slopes, kQueries, count, lanes, t.value_dim,
                  false);
  with_look(look_at(t, s.seen.find(t, tile, first_key)), [&]<Look kLook>() {
    for (int64_t c = 0; c < lanes; c += kLanes) weigh_slopes<kLook>(t, tile, first_key, count, s, c);
  });
  multiply_packed(panels, block.summed_keys, s.packed, s.dq + at * t.key_dim * kQueries, kQueries, t.key_dim, lanes,
                  count, true);
  pack_rows(panels, s.weights, kQueries, false, count, tile.rows, s.packed);
  multiply_packed(panels, s.packed, s.d_sums + at * s.ds_floats, s.dv, t.value_dim, count, t.value_dim, tile.rows,
                  true);
  pack_rows(panels, s.slopes, kQueries, false, count, tile.rows, s.packed);
  multiply_packed(panels, s.packed, s.query_sums + at * s.qs_floats, s.dk, t.key_dim, count, t.key_dim, tile.rows,
                  true);
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
void fill(float* x, int64_t n, float with) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(x + i, set(with), m); });
}

void backward(const AttentionTask& t, const PanelKernels& panels, const float* packed, const float* o, const float* d_o,
              int64_t o_stride, const float* stat, float* dq, float* dk, float* dv, int64_t dq_stride,
              int64_t dk_stride, int64_t dv_stride, float* scratch) {
  const BackwardScratch s(t, scratch);
  const PackedSizes sizes(t, true);
  pack_queries(t, panels, d_o, o_stride, s);
  fill(s.dq, s.tiles * kQueries * t.key_dim, 0);
  fill(s.stat, 2 * s.tiles * kQueries, 0), fill(s.ones, kQueries, 1);
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
    add_rows(s.dk, count, t.key_dim, dk + j * dk_stride, dk_stride);
    add_rows(s.dv, count, t.value_dim, dv + j * dv_stride, dv_stride);
  }
  for (int64_t i = 0; i < t.queries; i += kQueries)
    put_rows<true>(s.dq + i * t.key_dim, s.ones, {i, smaller(kQueries, t.queries - i)}, t.key_dim, dq + i * dq_stride,
                   dq_stride);
}

}  // namespace

const PairedAttention paired_attention_table = {.packed_floats = packed_floats,
                                                .pack = pack,
                                                .forward_floats = forward_floats,
                                                .backward_floats = backward_floats,
                                                .forward = forward,
                                                .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
