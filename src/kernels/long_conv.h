#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Causal convolution of every channel with a long filter of its own:
//   y[t, c] = sum_s h[t - s, c] x[s, c]   over s <= t with t - s < taps and s < rows,   t from `first` to `end` - 1
// Fourier transforms over blocks of doubling size carry what stands in earlier blocks, so that no rounding flows from a
// later row to an earlier one: O(n log^2 n). Exact: every sum goes by the rows in order, however they are cut.
struct LongConvTask {
  const float* x;  // [rows, channels], rows x_stride apart (negative: backwards)
  const float* h;  // [taps, channels], rows h_stride apart
  int64_t x_stride, h_stride;
  int64_t rows, first, end, taps, channels;
  bool exact;
  const float* turns;  // fft_turns() for the largest transform
};

struct LongConv {
  int64_t (*largest_transform)(const LongConvTask&);  // 0: none
  int64_t (*scratch_floats)(const LongConvTask&);
  int64_t (*flops)(const LongConvTask&);  // of all channels
  // y [end - first, channels], rows y_stride apart (negative: backwards); added to.
  void (*forward)(const LongConvTask&, float* y, int64_t y_stride, float* scratch);
  // Adds dh[k, c] = sum_t dy[t, c] x[t - k, c] for k < taps into dh [taps, channels], rows h_stride apart; `end` is
  // `rows`.
  void (*filter_gradient)(const LongConvTask&, const float* dy, int64_t dy_stride, float* dh, float* scratch);
  int64_t (*filter_gradient_flops)(const LongConvTask&);
};

SENNIT_KERNEL_TABLE(LongConv, long_conv)

}  // namespace sennit::kernels
