#pragma once
// What the two passes of bf16 attention share. Scores stand as [keys][queries], a query in a lane: maxima and sums over
// keys are then lane by lane, two neighbouring rows of weights are a row of pairs of the right factor in o^T = v^T w^T,
// and of the gradients' rows nothing is transposed either. They are in powers of two, weights 2^(s - top).
// Use only from src/kernels/paired_attention.cpp.
#include "kernels/attention_tile.h"
#include "kernels/paired_attention.h"
#include "kernels/paired_factors.h"
#include "kernels/transpose.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

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

constexpr float kOfOnePower = 0.693147180559945309f;  // ln 2

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

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
