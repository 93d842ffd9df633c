#pragma once
#include "autograd/var.h"

namespace sennit {

// Each row's groups of consecutive columns are normalised by themselves; `groups` = 1 is the whole row. The weight and
// bias have the length of a group (shared by all) or of the row, or are undefined.
struct NormOptions {
  int64_t groups = 1;
  float epsilon = 1e-5f;
};
Var rmsnorm(const Var& x, const Var& weight, NormOptions options = {});
Var layernorm(const Var& x, const Var& weight, const Var& bias, NormOptions options = {});
Var l2norm(const Var& x, NormOptions options = {});  // divides by sqrt(sum of squares + epsilon)

Var softmax(const Var& x);  // of each row

}  // namespace sennit
