#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// The recurrence h_t = exp(g_t) h_{t-1} + x_t of every channel by itself, for one sequence: x, g <= 0 and h [length,
// channels] with strides in floats, states [channels]. A caller may split the channels by moving every pointer.
struct DiagonalScanTask {
  const float *x, *g;
  int64_t x_stride, g_stride;
  int64_t length, channels;
};

struct DiagonalScan {
  // h0 == nullptr stands for zeros; h_end may be h0.
  void (*forward)(const DiagonalScanTask&, const float* h0, float* h_end, float* h, int64_t h_stride);
  // `h` is what forward gave. Adds into dx and dg (with the strides of x and g) and, unless nullptr, into dh0, which may not
  // be dh_end (nullptr: zeros).
  void (*backward)(const DiagonalScanTask&, const float* h0, const float* h, int64_t h_stride, const float* dh,
                   int64_t dh_stride, const float* dh_end, float* dx, float* dg, float* dh0);
};

SENNIT_KERNEL_TABLE(DiagonalScan, diagonal_scan)

}  // namespace sennit::kernels
