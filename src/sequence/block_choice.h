#pragma once
#include <algorithm>

#include "sequence/sparse_attention.h"

namespace sennit {

// The `most` highest of n scores, as indices in ascending order; equal ones from the front, -inf never. `chosen` has
// room for `most`, `scratch` for twice n. Returns how many.
int64_t choose_highest(const float* scores, int64_t n, int64_t most, int32_t* chosen, float* scratch);

// The blocks of `block` keys that each query of a segment chose, for each group of heads that chooses together: all up
// to its own for the first `all` queries, at most `most` for the others.
class BlockChoice {
 public:
  BlockChoice(const AttentionSegment& segment, int64_t groups, int64_t block, int64_t most, int64_t all)
      : offset_(segment.offset),
        all_(all),
        choosing_(segment.queries - all),
        block_(block),
        most_(std::min(most, (segment.keys + block - 1) / block)),
        counts_(groups * choosing_),
        blocks_(groups * choosing_ * most_) {}

  int64_t own(int64_t query) const { return (offset_ + query) / block_; }  // the block it stands in
  int64_t all() const { return all_; }
  // For a query that chooses: these, ascending; or those that score highest of all up to its own, where `scratch` has
  // room for twice as many scores.
  void take(int64_t group, int64_t query, std::span<const int32_t> blocks);
  void take_highest(int64_t group, int64_t query, const float* scores, float* scratch);
  std::span<const int32_t> taken(int64_t group, int64_t query) const {
    const int64_t at = place_of(group, query);
    return {blocks_.data() + at * most_, static_cast<size_t>(counts_[at])};
  }

  // Each block with the queries that chose it, block after block; of its own block a query sees what is not after it.
  void add_tiles(int64_t group, TileList& tiles) const;

 private:
  int64_t place_of(int64_t group, int64_t query) const { return group * choosing_ + query - all_; }

  int64_t offset_, all_, choosing_, block_, most_;
  Pooled<int32_t> counts_, blocks_;
};

}  // namespace sennit
