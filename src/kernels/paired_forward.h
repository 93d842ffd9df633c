#pragma once
// The forward pass of bf16 attention.
// Use only from src/kernels/paired_attention.cpp.
#include "kernels/paired_parts.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

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

// What weights of a block may add up to before those of its query are taken against a higher score: all is well below
// overflow until then, and as precise.
constexpr float kMostOfBlock = 0x1p60f;

// The weights of the lanes from c and the next kLanes, as pairs, and their sums.
template <Look kLook>
SENNIT_INLINE void weigh(const LaneScores<kLook>& left, const LaneScores<kLook>& right, int64_t depth,
                         const ForwardScratch& s, int64_t c, vf (&totals)[2]) {
  vf odd_totals[2], base[2];
  for (int v = 0; v < 2; ++v) {
    const vf top = load(s.top + c + v * kLanes);
    base[v] = select(less(set(kNothing), top), top, zero());
    totals[v] = odd_totals[v] = zero();
  }
  for (int64_t u = 0; u < depth; ++u)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const LaneScores<kLook>& scores = v == 0 ? left : right;
      const vf even = short_exp2(scores.at(2 * u, base[v])), odd = short_exp2(scores.at(2 * u + 1, base[v]));
      totals[v] = totals[v] + even, odd_totals[v] = odd_totals[v] + odd;
      store(unit_at(s.weights, depth, u, c + v * kLanes), pair(even, odd));
    }
  for (int v = 0; v < 2; ++v) totals[v] = totals[v] + odd_totals[v];
}

// Brings what was summed for the lanes from c, where a block's weights add up to too much, to the block's highest score.
template <Look kLook>
void raise(const AttentionTask& t, const LaneScores<kLook>& scores, int64_t depth, vf totals, const ForwardScratch& s,
           int64_t c) {
  vf highest = scores.at(0, zero());
  for (int64_t j = 1; j < 2 * depth; ++j) highest = max(highest, scores.at(j, zero()));
  const vmask fine = less(totals, set(kMostOfBlock));
  const vf before = load(s.top + c), top = select(fine, before, max(before, highest)),
           shrink = select(less(before, top), short_exp2(before - top), set(1));
  store(s.top + c, top);
  store(s.total + c, load(s.total + c) * shrink);
  for (int64_t i = 0; i < t.value_dim; ++i) {
    float* place = s.sums + i * kQueries + c;
    store(place, load(place) * shrink);
  }
}

// Weights of the lanes from c, two vectors abreast, from the products of a block. They are taken against the highest
// score of the first block in which a query sees a key, and again where that is found too low.
template <Look kLook>
void weigh_lanes(const AttentionTask& t, QueryTile tile, int64_t first_key, int64_t count, const ForwardScratch& s,
                 int64_t c) {
  const LaneScores<kLook> left(t, s.scores, s.seen, tile, first_key, c),
      right(t, s.scores, s.seen, tile, first_key, c + kLanes);
  const int64_t depth = depth_of(count);
  vf totals[2] = {set(kMostOfBlock), set(kMostOfBlock)};
  if (highest(max(load(s.top + c), load(s.top + c + kLanes))) > kNothing) weigh(left, right, depth, s, c, totals);
  vf too_much = zero();
  for (int v = 0; v < 2; ++v) {
    const vmask fine = less(set(kNothing), load(s.top + c + v * kLanes));
    totals[v] = select(fine, totals[v], set(kMostOfBlock));
    too_much = select(less(totals[v], set(kMostOfBlock)), too_much, set(1));
  }
  if (highest(too_much) > 0) {
    raise(t, left, depth, totals[0], s, c);
    raise(t, right, depth, totals[1], s, c + kLanes);
    weigh(left, right, depth, s, c, totals);
  }
  for (int v = 0; v < 2; ++v) {
    float* total = s.total + c + v * kLanes;
    store(total, load(total) + totals[v]);
  }
}

void forward_tile(const AttentionTask& t, const PanelKernels& panels, const float* packed, QueryTile tile,
                  const ForwardScratch& s) {
  const PackedSizes sizes(t, false);
  const int64_t lanes = tile.lanes();
  pack_columns(panels, t.q + tile.first * t.q_stride, t.q_stride, false, tile.rows, lanes, t.key_dim, s.queries);
  for (int64_t c = 0; c < kQueries; ++c) s.top[c] = c < tile.rows ? kNothing : 0, s.total[c] = 0;
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
  panels.done();
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
