#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// An estimate of attention by positive features, made exact for a few keys (Scatterbrain, Chen et al.,
// arXiv:2110.15343, section 4). Of a query i, with f_ij = sum_r exp(b_ir + a_jr) the estimate of exp(s_ij), s_ij =
// scale q_i . k_j, and mean_i and exp(log_sum_i) the weighted mean of all values by f and the sum of its weights:
//   c_ij = exp(s_ij) - f_ij,   o_i = (exp(log_sum_i) mean_i + sum_j c_ij v_j) / (exp(log_sum_i) + sum_j c_ij)
// over the keys j listed. All exponents are less `top`, the largest of log_sum_i and s_ij, which no logarithm of an
// estimate exceeds as long as the keys listed are among those of the sum.
struct CorrectedTask {
  const float *k, *v, *a;  // one head: rows k_stride, v_stride, a_stride apart; a may be nullptr where features = 0
  int64_t k_stride, v_stride, a_stride;
  int64_t key_dim, value_dim, features;
  float scale;
};
struct CorrectedRow {
  const float *q, *b, *mean;  // [key_dim], [features], [value_dim]
  float log_sum;              // -inf: nothing is estimated
  const int32_t* keys;        // each at most once
  int64_t count;
};

struct CorrectedAttention {
  // Rows o and, for backward, `top` and the sum of the weights less it. `scratch` has `count` floats.
  void (*forward)(const CorrectedTask&, const CorrectedRow&, float* o, float* top, float* total, float* scratch);
  // Adds the gradients of one row into those of q, b, mean and log_sum, and of the keys' k, v and a (with the task's
  // strides), given d_o and what forward made.
  struct Gradients {
    float *q, *b, *mean, *log_sum, *k, *v, *a;
  };
  void (*backward)(const CorrectedTask&, const CorrectedRow&, const float* o, const float* d_o, float top, float total,
                   const Gradients& into);
};

SENNIT_KERNEL_TABLE(CorrectedAttention, corrected_attention)

}  // namespace sennit::kernels
