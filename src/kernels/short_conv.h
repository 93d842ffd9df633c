#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Causal depthwise convolution over one sequence x [length, channels]:
//   y[t, c] = bias[c] + sum_j w[c, j] x[t - width + 1 + j, c],  width from 2 to 8.
// What comes before the sequence is its state, the last width - 1 inputs [width - 1, channels], oldest first; nullptr
// stands for zeros. Channels are independent: a caller may split them by moving every pointer.
struct ShortConvTask {
  const float* x;
  int64_t x_stride;   // floats from one token to the next
  const float* w;     // [channels, width]
  const float* bias;  // [channels], or nullptr
  int64_t length, channels, width;
  int64_t state_stride;  // of every state below
};

struct ShortConv {
  // Any length from 0. state_end may be state, or nullptr when not wanted. y may not overlap x.
  void (*forward)(const ShortConvTask&, const float* state, float* state_end, float* y, int64_t y_stride);
  // Adds into dx (with the strides of x), dw [channels, width], dbias [channels] and dstate; dbias and dstate may be
  // nullptr when not wanted, dstate_end when zero. dstate may not be dstate_end.
  void (*backward)(const ShortConvTask&, const float* state, const float* dy, int64_t dy_stride,
                   const float* dstate_end, float* dx, float* dw, float* dbias, float* dstate);
};

SENNIT_KERNEL_TABLE(ShortConv, short_conv)

}  // namespace sennit::kernels
