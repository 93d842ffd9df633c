#pragma once
#include "autograd/var.h"

namespace sennit {

// Runs of `run` rows become one row each, column by column; rows after the last whole run are left out. [N, D] -> [N /
// run, D]. The gradient of a highest or lowest number goes to the first that has it.
enum class Pooling { mean, highest, lowest };
Var pool_runs(const Var& x, int64_t run, Pooling how);

}  // namespace sennit
