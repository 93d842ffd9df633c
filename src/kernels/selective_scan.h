#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// The selective state space of Mamba (Gu & Dao, arXiv:2312.00752, eq. 2 and algorithm 2) for one sequence. For each
// channel c and state n:
//   h[c, n] = exp(dt[t, c] A[c, n]) h[c, n] + dt[t, c] B[t, n] x[t, c]
//   y[t, c] = sum_n C[t, n] h[c, n] + D[c] x[t, c]
// x, y, dt (after softplus) [length, channels]; A (negative) [channels, states]; B, C [length, states]; D [channels] or
// nullptr; the state h [channels, states]. All are contiguous but for the strides from one token to the next.
struct SelectiveScanTask {
  const float *x, *dt, *a, *b, *c, *d;
  int64_t x_stride, dt_stride, b_stride, c_stride;
  int64_t length, states;
  int64_t begin, end;  // the channels to do: a caller may split them over threads

  SelectiveScanTask of_channels(int64_t first, int64_t last) const {
    SelectiveScanTask t = *this;
    t.begin = first, t.end = last;
    return t;
  }
};

struct SelectiveScanGradient {
  Sum dx, ddt;     // with the strides of x, dt: of the task's channels
  float* da;       // with the shape of A, the same
  float *db, *dc;  // [length, states] with the strides of B, C: a caller gives each range of channels its own
  float* dd;       // [channels], or nullptr
  float* dh0;      // [channels, states], or nullptr when not wanted
};

// h0 == nullptr stands for zeros; h_end may be h0, or nullptr when not wanted.
struct SelectiveScan {
  int64_t (*scratch_floats)(const SelectiveScanTask&);
  int64_t (*backward_scratch_floats)(const SelectiveScanTask&);  // grows with length
  void (*forward)(const SelectiveScanTask&, const float* h0, float* h_end, float* y, int64_t y_stride, float* scratch);
  // Adds into all of `gradient`; there is a state at least. dh_end == nullptr stands for zeros; dh0 may not be dh_end.
  void (*backward)(const SelectiveScanTask&, const float* h0, const float* dy, int64_t dy_stride, const float* dh_end,
                   const SelectiveScanGradient& gradient, float* scratch);
};

SENNIT_KERNEL_TABLE(SelectiveScan, selective_scan)

}  // namespace sennit::kernels
