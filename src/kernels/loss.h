#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// Functions of one row of n >= 1 logits. Large and -inf logits are safe; at least one must be finite, but for softmax,
// which gives zeros for a row of -inf only (everything masked).
struct Loss {
  // ln sum_i exp(x_i)
  float (*log_sum_exp)(const float* x, int64_t n);
  // -ln softmax(x)[target]
  float (*cross_entropy)(const float* x, int64_t n, int64_t target);
  // The same, and x becomes its gradient times scale: scale (softmax(x) - onehot(target)).
  float (*cross_entropy_gradient)(float* x, int64_t n, int64_t target, float scale);
  // y = softmax(x); y may be x.
  void (*softmax)(const float* x, int64_t n, float* y);
  // dx: y (dy - sum(y dy)), where y = softmax(x).
  void (*softmax_gradient)(const float* y, const float* dy, int64_t n, Sum dx);
  // The first index of the highest value; NaN is passed over, 0 if there is nothing else.
  int64_t (*argmax)(const float* x, int64_t n);
};

SENNIT_KERNEL_TABLE(Loss, loss)

}  // namespace sennit::kernels
