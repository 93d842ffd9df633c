#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// A linear system of fixed coefficients, the same for every channel of one sequence:
//   m_i <- sum_j a_ij m_j + b_i u
// u [length, channels], m [length, order, channels] with rows in floats; the state is [order, channels].
struct LtiScanTask {
  const float* u;
  const float *a, *b;  // [order, order], [order]
  int64_t u_stride, length, channels, order;
  int64_t state_stride;  // floats from one order to the next, of states and within a row of m
};

struct LtiScan {
  int64_t (*scratch_floats)(const LtiScanTask&);
  // s0 == nullptr stands for zeros; s_end may be s0.
  void (*forward)(const LtiScanTask&, const float* s0, float* s_end, float* m, int64_t m_stride, float* scratch);
  // Adds into du (with the stride of u) and, unless nullptr, ds0; ds_end == nullptr stands for zeros.
  void (*backward)(const LtiScanTask&, const float* dm, int64_t dm_stride, const float* ds_end, float* du, float* ds0,
                   float* scratch);
};

SENNIT_KERNEL_TABLE(LtiScan, lti_scan)

}  // namespace sennit::kernels
