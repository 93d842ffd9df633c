#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// Maps over n floats. Unary maps: y = f(x), dx: dy f'(x). Any pointer may be unaligned; y may be x.
struct Elementwise {
  using Map = void (*)(const float* x, float* y, int64_t n);
  using Gradient = void (*)(const float* x, const float* dy, Sum dx, int64_t n);

  Map complement;  // sqrt(1 - e^2x) for x <= 0: the weight that keeps the variance of a gated sum (Griffin, arXiv:2402.19427, eq. 4)
  Gradient complement_gradient;
  Map exp, log, sigmoid, silu, gelu, gelu_erf, relu, relu2, tanh, softplus;  // gelu: the tanh form; gelu_erf: x Phi(x)
  Map sine;                                                                  // |x| up to some thousands
  Gradient sigmoid_gradient, silu_gradient, gelu_gradient, gelu_erf_gradient, relu_gradient, relu2_gradient, tanh_gradient,
      softplus_gradient, sine_gradient;

  // y = silu(gate) up (Shazeer, arXiv:2002.05202, eq. 6)
  void (*swiglu)(const float* gate, const float* up, float* y, int64_t n);
  void (*swiglu_gradient)(const float* gate, const float* up, const float* dy, Sum dgate, Sum dup, int64_t n);

  void (*add)(const float* a, const float* b, float* y, int64_t n);         // y = a + b
  void (*multiply)(const float* a, const float* b, float* y, int64_t n);    // y = a b
  void (*multiply_add)(const float* a, const float* b, float* y, int64_t n);  // y += a b
  void (*axpy)(float scale, const float* x, float* y, int64_t n);           // y += scale x
  void (*affine)(const float* x, float scale, float shift, float* y, int64_t n);  // y = scale x + shift
  double (*sum)(const float* x, int64_t n);          // in double, in index order of 4096-element runs
  double (*sum_squares)(const float* x, int64_t n);
  float (*dot)(const float* a, const float* b, int64_t n);
  void (*to_bf16)(const float* x, uint16_t* y, int64_t n);
  void (*from_bf16)(const uint16_t* x, float* y, int64_t n);
};

SENNIT_KERNEL_TABLE(Elementwise, elementwise)

}  // namespace sennit::kernels
