#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Attention whose weights hang on the distance l = j - i of key and query through two numbers of each distance, b_l and
// g_l:
//   o_i = sum_j w_ij g_l v_j / sum_j w_ij
//   softmax      w_ij = exp(scale q_i . k_j + b_l)                 (URPE, Luo et al., arXiv:2205.13401, eq. 6)
//   robust       w_ij = 1 / (b_l + scale |q_i - g_l k_j|^2)        (adaptive filter attention, arXiv:2509.04154)
//   exponential  w_ij = exp(-scale |q_i - g_l k_j|^2 / b_l) / b_l  (the same, with lighter tails)
// Distances beyond the tables count as the furthest in them.
enum class LagRule { softmax, robust, exponential };

struct LagAttentionTask {
  LagRule rule;
  const float *q, *k, *v;  // one head: rows q_stride, k_stride, v_stride apart
  const float *b, *g;      // of distances -reach to reach, table_stride apart
  int64_t q_stride, k_stride, v_stride, table_stride;
  int64_t queries, keys, key_dim, value_dim;
  int64_t offset, reach;  // position of query 0 less that of key 0; of the tables
  bool causal;
  float scale;
};

struct LagAttention {
  int64_t (*scratch_floats)(const LagAttentionTask&);
  void (*forward)(const LagAttentionTask&, float* o, int64_t o_stride, float* scratch);
  // Adds into dq, dk, dv (with the strides of q, k, v), db and dg (with the table's).
  struct Gradients {
    float *q, *k, *v, *b, *g;
  };
  void (*backward)(const LagAttentionTask&, const float* d_o, int64_t o_stride, const Gradients& into, float* scratch);
};

SENNIT_KERNEL_TABLE(LagAttention, lag_attention)

}  // namespace sennit::kernels
