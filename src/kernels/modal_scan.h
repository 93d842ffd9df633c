#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// A diagonal state space with complex modes (S4D, Gu et al., arXiv:2206.11893) for one channel of one sequence:
//   h_n <- l_n h_n + u,   y = sum_n Re(w_n h_n)
// u, y [length] with strides in floats; l and w are [modes] real parts and [modes] imaginary parts; so is the state h.
struct ModalScanTask {
  const float* u;
  const float *lr, *li, *wr, *wi;
  int64_t u_stride, length, modes;
};

struct ModalScan {
  int64_t (*backward_scratch_floats)(const ModalScanTask&);  // grows with length
  // h0 == nullptr stands for zeros; h_end may be h0.
  void (*forward)(const ModalScanTask&, const float* h0, float* h_end, float* y, int64_t y_stride);
  // Adds into du (with the stride of u), the gradients of l and w, and, unless nullptr, dh0; dh_end == nullptr stands
  // for zeros.
  struct Gradients {
    float *u, *lr, *li, *wr, *wi;
  };
  void (*backward)(const ModalScanTask&, const float* h0, const float* dy, int64_t dy_stride, const float* dh_end,
                   const Gradients& into, float* dh0, float* scratch);
};

SENNIT_KERNEL_TABLE(ModalScan, modal_scan)

}  // namespace sennit::kernels
