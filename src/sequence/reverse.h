#pragma once
#include "sequence/batch.h"

namespace sennit {

// Every sequence's rows in the opposite order.
Var reversed(const Var& x, std::span<const Segment> segments);

}  // namespace sennit
