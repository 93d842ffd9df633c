#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// One AdamW step (Loshchilov & Hutter, arXiv:1711.05101, algorithm 2, with the schedule folded into the rate):
//   m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2,   g = gradient_scale * gradient
//   p -= rate (m / correction1 / (sqrt(v / correction2) + epsilon) + weight_decay p)
struct AdamWStep {
  double rate, beta1, beta2, epsilon, weight_decay;
  double correction1, correction2;  // 1 - beta^step
  double gradient_scale;            // for clipping, averaging and loss scaling
};

struct Optimizer {
  // Over n floats each, every element by itself, in one pass.
  void (*adamw)(const AdamWStep& step, const float* gradient, float* p, float* m, float* v, int64_t n);
};

SENNIT_KERNEL_TABLE(Optimizer, optimizer)

}  // namespace sennit::kernels
