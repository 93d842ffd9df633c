#pragma once
#include <string_view>

#include "autograd/var.h"

namespace sennit {

// Functions of one element.
Var exp(const Var& x);
Var log(const Var& x);
Var inverse(const Var& x);  // 1 / x for x > 0, by way of the logarithm
Var sigmoid(const Var& x);
Var log_sigmoid(const Var& x);
Var silu(const Var& x);
Var gelu(const Var& x);  // the tanh form
Var gelu_erf(const Var& x);  // x Phi(x), Phi of the normal distribution
Var relu(const Var& x);
Var relu2(const Var& x);  // max(x, 0)^2
Var tanh(const Var& x);
Var softplus(const Var& x);
Var sine(const Var& x);

// sqrt(1 - e^2x) for x <= 0
Var complement(const Var& x);

// silu(gate) * up, fused (SwiGLU, Shazeer, arXiv:2002.05202).
Var swiglu(const Var& gate, const Var& up);

}  // namespace sennit
