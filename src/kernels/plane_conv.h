#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Depthwise convolution over one sequence x [length, channels] that is a grid, row after row of `columns` tokens:
//   y[t, c] = sum over |i| <= rows_away, |j| <= columns_away of w[tap, c] x[the token i rows down and j columns right,
//   c]
// or, with `differences`, of w[tap, c] times what that token has more than t, so that a constant grid gives exactly
// nothing; tap = (i + rows_away) (2 columns_away + 1) + j + columns_away and tokens outside of the grid count for
// nothing. Causal: over those taps alone that are no later in the sequence than the token. What comes before the
// sequence then is its state, the last `kept` inputs [kept, channels], oldest first; nullptr stands for zeros. Channels
// are independent: a caller may split them by moving every pointer.
struct PlaneConvTask {
  const float* x;
  const float* w;
  int64_t stride;  // floats from one token, tap or row of a state to the next
  int64_t length, channels;
  int64_t position;  // of the first token: 0 unless causal
  int64_t columns, rows_away, columns_away;
  bool causal, differences;
  int64_t kept;
};

struct PlaneConv {
  // y has the strides of x and may not overlap it.
  void (*forward)(const PlaneConvTask&, const float* state, float* y);
  // Adds into dx, dw and, where they are wanted and there is a state, dstate; dw and dstate may be nullptr.
  void (*backward)(const PlaneConvTask&, const float* state, const float* dy, float* dx, float* dw, float* dstate);
};

SENNIT_KERNEL_TABLE(PlaneConv, plane_conv)

}  // namespace sennit::kernels
