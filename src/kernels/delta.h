#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// The gated delta rule (Gated DeltaNet, Yang et al., arXiv:2412.06464, eq. 10) for one head of one sequence:
//   S_t = exp(g_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,   y_t = scale S_t^T q_t
// With g == nullptr, plain DeltaNet (arXiv:2406.06484). q, k [length, key_dim], k of length 1 (the caller's part);
// v, y [length, value_dim]; g <= 0 (-inf forgets all) and beta in [0, 2] [length]; the state S [key_dim, value_dim],
// contiguous. Strides are floats from one token to the next.
struct DeltaTask {
  const float *q, *k, *v, *g, *beta;
  int64_t q_stride, k_stride, v_stride, g_stride, beta_stride;
  int64_t length, key_dim, value_dim;
  float scale;
  const float* next = nullptr;  // a state as large that the next task begins with: the token-by-token form fetches it
  // [length, value_dim], rows v_stride apart: v_t - exp(g_t) S_{t-1}^T k_t, by how much k recalled v wrongly, which the
  // forward pass leaves for the backward pass; nullptr when none follows.
  float* errors = nullptr;

  // The same of a head further on, where heads lie side by side.
  DeltaTask of_head(int64_t head) const {
    DeltaTask t = *this;
    t.q += head * key_dim, t.k += head * key_dim, t.v += head * value_dim, t.beta += head;
    if (g) t.g += head;
    if (errors) t.errors += head * value_dim;
    return t;
  }
};

// s0 == nullptr stands for zeros; s_end may be s0, or nullptr when not wanted. `scratch` has scratch_floats(task)
// floats.
struct Delta {
  using Forward = void (*)(const DeltaTask&, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch);

  int64_t (*scratch_floats)(const DeltaTask&);           // for the two forward forms
  int64_t (*backward_scratch_floats)(const DeltaTask&);  // grows with length
  Forward recurrent;                                     // token by token, in the order of the definition
  Forward chunked;  // by matrix products and a triangular solve within chunks: the same up to rounding
  // Of a task with its errors. The gradients have their inputs' strides, that of g is not used when g is absent; adds
  // into ds0. ds_end == nullptr stands for zeros; ds0 may be nullptr when not wanted, and may not be ds_end.
  struct Gradients {
    Sum q, k, v, g, beta;
  };
  void (*backward)(const DeltaTask&, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   const Gradients& into, float* ds0, float* scratch);
};

SENNIT_KERNEL_TABLE(Delta, delta)

}  // namespace sennit::kernels
