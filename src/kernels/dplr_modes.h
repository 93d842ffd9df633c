#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Complex modes that meet in one real number (the bilinear step of a diagonal plus rank-one state space: S4, Gu et al.,
// arXiv:2111.00396), for one channel of one sequence:
//   h_n <- a_n h_n + b_n u - e_n (s + s'),   s' = 2 sum_n Re(p_n h_n) of the new h and s of the old,   y = sum_n Re(c_n
//   h_n)
// Each of a, b, e, p, c is [modes] real parts and [modes] imaginary parts; so is the state h.
struct DplrModesTask {
  const float* u;
  const float *a, *b, *e, *p, *c;
  int64_t u_stride, length, modes;
};

struct DplrModes {
  int64_t (*backward_scratch_floats)(const DplrModesTask&);  // grows with length
  // h0 == nullptr stands for zeros; h_end may be h0.
  void (*forward)(const DplrModesTask&, const float* h0, float* h_end, float* y, int64_t y_stride);
  // Adds into du (with the stride of u), the gradients of a, b, e, p, c, and, unless nullptr, dh0; dh_end == nullptr
  // stands for zeros.
  struct Gradients {
    float *u, *a, *b, *e, *p, *c;
  };
  void (*backward)(const DplrModesTask&, const float* h0, const float* dy, int64_t dy_stride, const float* dh_end,
                   const Gradients& into, float* dh0, float* scratch);
};

SENNIT_KERNEL_TABLE(DplrModes, dplr_modes)

}  // namespace sennit::kernels
