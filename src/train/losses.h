#pragma once
#include <span>

#include "autograd/var.h"

namespace sennit::train {

// Sends gradients back from a task's loss and from the auxiliary losses beside it (Context::losses), each times
// `share`. Returns the sum of the auxiliary ones.
double backward_all(const Var& loss, std::span<const Var> auxiliary, float share);

}  // namespace sennit::train
