#pragma once
#include <initializer_list>

#include "sequence/attention.h"
#include "sequence/batch.h"
#include "tensor/pooled.h"

namespace sennit {

// The rows that the queries of a batch see, for attention(): its own, those that its states kept, or the memory's.
struct SeenRows {
  Pooled<Pooled<Var>> parts;          // of each part given: its rows in this batch, then those of each kept sequence
  Pooled<AttentionSegment> segments;  // whose `source` counts within a part

  std::span<const Var> part(size_t i) const { return parts[i]; }
};

// `parts` are maps of the rows looked at ([N, ...], or [M, ...] of the memory across), keys and values most often.
// Where a sequence keeps a state, part i is appended to its growing field `field` + i; `window` and `heads` as in
// LayerState::append.
SeenRows seen_rows(std::initializer_list<Var> parts, const Batch& batch, size_t field, int64_t window = 0,
                   int64_t heads = 0);

// What is looked at: the batch's own rows x, or the memory across.
const Var& looked_at(const Var& x, const Batch& batch);
std::span<const Segment> looked_at_segments(const Batch& batch);

}  // namespace sennit
