#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// How a linear recurrence forgets: not at all, by one factor for each token (retention, Mamba-2), or by one for each
// token and key channel.
enum class Decay { none, scalar, vector };

// Gated linear attention (Yang et al., arXiv:2312.06635, eq. 3) for one head of one sequence:
//   S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T,   y_t = scale S_t^T q_t
// or, with reads_before, y_t = scale S_{t-1}^T q_t (RWKV-6, Peng et al., arXiv:2404.05892: a token reads before it writes).
// q, k [length, key_dim]; v, y [length, value_dim]; g <= 0 (-inf forgets all) absent, [length] or [length, key_dim];
// the state S [key_dim, value_dim], contiguous. Strides are floats from one token to the next.
struct GlaTask {
  const float *q, *k, *v, *g;
  int64_t q_stride, k_stride, v_stride, g_stride;
  int64_t length, key_dim, value_dim;
  float scale;
  Decay decay;
  bool reads_before = false;

  int64_t gate_dim() const { return !g ? 0 : decay == Decay::vector ? key_dim : 1; }
  // The same of a head further on, where heads lie side by side.
  GlaTask of_head(int64_t head) const {
    GlaTask t = *this;
    t.q += head * key_dim, t.k += head * key_dim, t.v += head * value_dim, t.g += head * gate_dim();
    return t;
  }
};

// s0 == nullptr stands for zeros; s_end may be s0, or nullptr when not wanted. `scratch` has scratch_floats(task)
// floats.
struct Gla {
  using Forward = void (*)(const GlaTask&, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch);

  int64_t (*scratch_floats)(const GlaTask&);           // for the two forward forms
  int64_t (*backward_scratch_floats)(const GlaTask&);  // grows with length
  Forward recurrent;                                   // token by token, in the order of the definition
  Forward chunked;  // by matrix products within chunks: the same up to rounding, faster from some 8 tokens on
  // The gradients have their inputs' strides, that of g is not used when g is absent; adds into ds0. ds_end == nullptr
  // stands for zeros; ds0 may be nullptr when not wanted, and may not be ds_end.
  struct Gradients {
    Sum q, k, v, g;
  };
  void (*backward)(const GlaTask&, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   const Gradients& into, float* ds0, float* scratch);
};

SENNIT_KERNEL_TABLE(Gla, gla)

}  // namespace sennit::kernels
