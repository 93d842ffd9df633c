#pragma once
#include "sequence/sparse_attention.h"

namespace sennit {

// The `most` highest of n scores, as indices in ascending order; equal ones from the front, -inf never. `chosen` has
// room for `most`, `scratch` for n. Returns how many.
int64_t choose_highest(const float* scores, int64_t n, int64_t most, int32_t* chosen, float* scratch);

// The blocks of `block` keys that each query of a segment chose, for each group of heads that chooses together.
class BlockChoice {
 public:
  BlockChoice(const AttentionSegment& segment, int64_t groups, int64_t block, int64_t most)
      : offset_(segment.offset),
        queries_(segment.queries),
        block_(block),
        most_(most),
        counts_(groups * segment.queries),
        blocks_(groups * segment.queries * most) {}

  int32_t* blocks(int64_t group, int64_t query) { return blocks_.data() + (group * queries_ + query) * most_; }
  int32_t& count(int64_t group, int64_t query) { return counts_[group * queries_ + query]; }
  std::span<const int32_t> chosen(int64_t group, int64_t query) const {
    const int64_t at = group * queries_ + query;
    return {blocks_.data() + at * most_, static_cast<size_t>(counts_[at])};
  }
  int64_t most() const { return most_; }

  // Each block with the queries that chose it, block after block; of its own block a query sees what is not after it.
  void add_tiles(int64_t group, TileList& tiles) const;

 private:
  int64_t offset_, queries_, block_, most_;
  Pooled<int32_t> counts_, blocks_;
};

}  // namespace sennit
