#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// The near tokens of AFT-conv (Zhai et al., arXiv:2105.14103, section 3.3) beside one far value, for channels that
// share their learned distances: with s_tj = k_{t-j} + w_j,
//   y_t = (exp(L_t) m_t + sum_{j<window} exp(s_tj) v_{t-j}) / (exp(L_t) + sum_j exp(s_tj))   of every channel by itself
// k and v [past + length, channels] start `window` tokens before y; L and m [length, channels]; w [window]. All rows
// `stride` floats apart.
struct AftTask {
  const float *k, *v, *far_logit, *far_value, *w;
  int64_t stride, length, channels, window;
};

struct Aft {
  // Also lse [length, channels], the logarithm of the denominator.
  void (*forward)(const AftTask&, float* y, float* lse);
  // Adds into the gradients, laid out as what they are of.
  struct Gradients {
    float *k, *v, *far_logit, *far_value, *w;
  };
  void (*backward)(const AftTask&, const float* y, const float* lse, const float* dy, const Gradients& into);
  // The weights of one token's pairs: w_j = sum_{r<rank} reader_r read[r stride + j], j < window.
  void (*pairs)(const float* reader, const float* read, int64_t stride, int64_t rank, int64_t window, float* w);
};

SENNIT_KERNEL_TABLE(Aft, aft)

}  // namespace sennit::kernels
