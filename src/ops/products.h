#pragma once
#include "autograd/var.h"
#include "products/precision.h"

namespace sennit {

// a [m, k] times b [k, n]; with transpose flags, a is given as [k, m] or b as [n, k].
struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;
  Precision precision = Precision::f32;
};
Var matmul(const Var& a, const Var& b, MatmulOptions options = {});

// y = x W^T + bias: x [N, in], W [out, in], bias [out] or undefined.
Var linear(const Var& x, const Var& weight, const Var& bias = {}, Precision precision = Precision::f32);

// The mean over rows of -ln softmax(x W^T)[target], without ever holding all the logits; rows with target < 0 do not
// count (0 when none does). When `losses` is given it receives each row's loss [N], 0 where the target is < 0.
Var linear_cross_entropy(const Var& x, const Var& weight, std::span<const int32_t> targets,
                         Precision precision = Precision::f32, Tensor* losses = nullptr);

}  // namespace sennit
