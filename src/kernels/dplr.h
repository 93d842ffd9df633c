#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// A linear recurrence whose transition is diagonal plus of rank one (RWKV-7, Peng et al., arXiv:2503.14456, eq. 16),
// for one head of one sequence:
//   S_t = diag(exp(g_t)) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T,   y_t = scale S_t^T q_t
// q, k, a, b, g [length, key_dim], g <= 0; v, y [length, value_dim]; the state S [key_dim, value_dim], contiguous. The
// delta rule is a_t = k_t, b_t = -beta_t k_t. `stride` is floats from one token to the next, of v `v_stride`.
struct DplrTask {
  const float *q, *k, *v, *a, *b, *g;
  int64_t stride, v_stride;
  int64_t length, key_dim, value_dim;
  float scale;
  const float* next = nullptr;  // a state as large that the next task begins with: the forward pass fetches it
  // What the forward pass leaves for the backward pass, nullptr when none follows: the states before tokens kKept,
  // 2 kKept, ..., from where that goes through the tokens anew, and z [length, value_dim], rows v_stride apart, the
  // a_t^T S_{t-1}.
  float *kept = nullptr, *z = nullptr;
  int64_t kept_stride = 0;  // floats from what is kept of one head to that of the next

  static constexpr int64_t kKept = 64;
  // The same of a head further on, where heads lie side by side.
  DplrTask of_head(int64_t head) const {
    DplrTask t = *this;
    for (const float** x : {&t.q, &t.k, &t.a, &t.b, &t.g}) *x += head * key_dim;
    t.v += head * value_dim;
    if (kept) t.kept += head * kept_stride;
    if (z) t.z += head * value_dim;
    return t;
  }
  int64_t kept_floats() const { return length > 0 ? (length - 1) / kKept * key_dim * value_dim : 0; }
};

// s0 == nullptr stands for zeros; s_end may be s0. `scratch` has scratch_floats(task) floats.
struct Dplr {
  int64_t (*scratch_floats)(const DplrTask&);
  int64_t (*backward_scratch_floats)(const DplrTask&);
  // Token by token, in the order of the definition.
  void (*forward)(const DplrTask&, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch);
  // In chunks, by matrix products and a triangular solve, of a task with what the forward pass left. The gradients have
  // their inputs' strides; adds into ds0. ds_end == nullptr stands for zeros; ds0 may be nullptr when not wanted, and
  // may not be ds_end.
  struct Gradients {
    Sum q, k, v, a, b, g;
  };
  void (*backward)(const DplrTask&, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   const Gradients& into, float* ds0, float* scratch);
};

SENNIT_KERNEL_TABLE(Dplr, dplr)

}  // namespace sennit::kernels
