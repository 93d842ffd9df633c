#pragma once
#include "sequence/plane.h"
#include "tensor/pooled.h"

// Tokens of a plane by the square window that they lie in.
namespace sennit {

// Where the rows of sequences lie that fill a plane, row after row of `columns` tokens; and of a batch: as it says, or
// so.
Pooled<Place> filled_places(std::span<const Segment> segments, int64_t columns);
Pooled<Place> places_of(const Batch& batch, int64_t columns);

// Windows of side x side places, laid from place (0, 0) on. Those that hold no token are left out, and the others hold
// what is there: a window at a border, or in a plane that is not filled, is a shorter one.
struct Windows {
  Pooled<int64_t> order;      // the batch's rows, window after window, in each in the order in which they came
  Pooled<int64_t> back;       // where in `order` each row is
  Pooled<Segment> windows;    // each a run of `order`
  Pooled<Segment> sequences;  // each a run of `windows`, one a segment of the batch
};
Windows windows_of(std::span<const Segment> segments, std::span<const Place> places, int64_t side);

}  // namespace sennit
