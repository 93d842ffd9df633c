#pragma once
// The forward pass of bf16 attention.
// Use only from src/kernels/paired_attention*.cpp.
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
template <Look kLook, class Steps>
SENNIT_INLINE void weigh(const LaneScores<kLook>& left, const LaneScores<kLook>& right, int64_t depth,
                         const ForwardScratch& s, int64_t c, Steps& steps, vf (&totals)[2]) {
  vf odd_totals[2], base[2];
  for (int v = 0; v < 2; ++v) {
    const vf top = load(s.top + c + v * kLanes);
    base[v] = select(less(set(kNothing), top), top, zero());
    totals[v] = odd_totals[v] = zero();
  }
  for (int64_t u = 0; u < depth; ++u) {
    steps.next();
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const LaneScores<kLook>& scores = v == 0 ? left : right;
      const vf even = short_exp2(scores.at(2 * u, base[v])), odd = short_exp2(scores.at(2 * u + 1, base[v]));
      totals[v] = totals[v] + even, odd_totals[v] = odd_totals[v] + odd;
      store(pairs_at(s.weights, depth, u, c + v * kLanes), pair(even, odd));
    }
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
template <Look kLook, class Steps>
void weigh_lanes(const AttentionTask& t, QueryTile tile, int64_t first_key, int64_t count, const ForwardScratch& s,
                 int64_t c, Steps& steps) {
  const LaneScores<kLook> left(t, s.scores, s.seen, tile, first_key, c),
      right(t, s.scores, s.seen, tile, first_key, c + kLanes);
  const int64_t depth = depth_of(count);
  vf totals[2] = {set(kMostOfBlock), set(kMostOfBlock)};
  if (highest(max(load(s.top + c), load(s.top + c + kLanes))) > kNothing) weigh(left, right, depth, s, c, steps, totals);
  vf too_much = zero();
  for (int v = 0; v < 2; ++v) {
    const vmask fine = less(set(kNothing), load(s.top + c + v * kLanes));
    totals[v] = select(fine, totals[v], set(kMostOfBlock));
    too_much = select(less(totals[v], set(kMostOfBlock)), too_much, set(1));
  }
  if (highest(too_much) > 0) {
    raise(t, left, depth, totals[0], s, c);
    raise(t, right, depth, totals[1], s, c + kLanes);
    weigh(left, right, depth, s, c, steps, totals);
  }
  for (int v = 0; v < 2; ++v) {
    float* total = s.total + c + v * kLanes;
    store(total, load(total) + totals[v]);
  }
}

// A panel of a tile's queries against a block of keys.
struct Stage {
  int64_t key, lane;
};

// The products of a stage.
class StageProducts {
 public:
  StageProducts(const AttentionTask& t, const PanelKernels& panels, const float* packed, const ForwardScratch& s)
      : t_(t), panels_(panels), sizes_(t, false), packed_(packed), s_(s) {}
  PanelProduct scores(Stage at) const {
    return packed_product(panels_, PackedBlock(sizes_, packed_, at.key).score_keys,
                          s_.queries + at.lane * depth_of(t_.key_dim), s_.scores + at.lane, kQueries, count(at),
                          kPanelColumns, t_.key_dim, false);
  }
  PanelProduct sums(Stage at) const {
    return packed_product(panels_, PackedBlock(sizes_, packed_, at.key).values,
                          s_.weights + at.lane * depth_of(count(at)), s_.sums + at.lane, kQueries, t_.value_dim,
                          kPanelColumns, count(at), true);
  }
  int64_t count(Stage at) const { return smaller(kKeys, t_.keys - at.key); }
  // Of the next block of keys and values, the half that is asked for during this stage.
  int64_t floats_ahead(Stage at) const { return at.key + kKeys < t_.keys ? sizes_.whole * kPanelColumns / kQueries : 0; }
  const float* ahead(Stage at) const {
    return packed_ + (at.key / kKeys + 1) * sizes_.whole + at.lane * sizes_.whole / kQueries;
  }

 private:
  const AttentionTask& t_;
  const PanelKernels& panels_;
  PackedSizes sizes_;
  const float* packed_;
  const ForwardScratch& s_;
};

// While the weights of one panel of queries are computed, the other is multiplied: by those that it had before, and
// with the keys that come next.
template <class Steps>
void forward_tile(const AttentionTask& t, const PanelKernels& panels, const float* packed, QueryTile tile,
                  const ForwardScratch& s, Steps& steps) {
  const StageProducts products(t, panels, packed, s);
  const int64_t lanes = tile.lanes(), end = seen(t, tile.first + tile.rows - 1).end;
  pack_columns(panels, t.q + tile.first * t.q_stride, t.q_stride, false, tile.rows, lanes, t.key_dim, s.queries);
  for (int64_t c = 0; c < kQueries; ++c) s.top[c] = c < tile.rows ? kNothing : 0, s.total[c] = 0;
  for (int64_t i = 0; i < t.value_dim * kQueries; ++i) s.sums[i] = 0;

  const bool turns = lanes > kPanelColumns;
  const auto next_of = [=](Stage at) {
    return at.lane + kPanelColumns < lanes ? Stage{at.key, at.lane + kPanelColumns} : Stage{at.key + kKeys, 0};
  };
  const auto add_scores = [&](Stage at) {
    if (at.key < end) steps.add(products.scores(at));
  };
  Stage now{seen(t, tile.first).begin / kKeys * kKeys, 0}, before{end, 0};
  add_scores(now);
  steps.rest();
  for (; now.key < end; before = now, now = next_of(now)) {
    if (turns) add_scores(next_of(now));
    if (turns && before.key < end) steps.add(products.sums(before));
    with_look(look_at(t, s.seen.find(t, tile, now.key)), [&]<Look kLook>() {
      const int64_t count = products.count(now);
      steps.spread(depth_of(count) * kPanelColumns / (2 * kLanes), products.ahead(now), products.floats_ahead(now));
      for (int64_t c = now.lane; c < now.lane + kPanelColumns; c += 2 * kLanes)
        weigh_lanes<kLook>(t, tile, now.key, count, s, c, steps);
    });
    steps.rest();
    if (!turns) steps.add(products.sums(now)), add_scores(next_of(now)), steps.rest();
  }
  if (turns && before.key < end) steps.add(products.sums(before)), steps.rest();
}

template <class Steps>
void forward(const AttentionTask& t, const PanelKernels& panels, const float* packed, int64_t begin, int64_t end,
             float* o, int64_t o_stride, float* stat, float* scratch, Steps& steps) {
  const ForwardScratch s(t, scratch);
  for (int64_t first = begin; first < end; first += kQueries) {
    const QueryTile tile{first, smaller(kQueries, end - first)};
    forward_tile(t, panels, packed, tile, s, steps);
    for (int64_t r = 0; r < tile.rows; r += kLanes) {
      const vf total = load(s.total + r);
      store_some(stat + first + r, fma(load(s.top + r), set(kOfOnePower), log(total)), tile.rows - r);
      store(s.total + r, select(less(zero(), total), set(1) / total, zero()));
    }
    put_rows<false>(s.sums, s.total, tile, t.value_dim, o + first * o_stride, o_stride);
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
