#pragma once
#include "kernels/lag_attention.h"

namespace sennit::kernels {

// Adaptive filter attention with dynamics and noise of each pair of channels (arXiv:2509.04154, the diagonal form).
// Pair c is channels c and c + h, h = key_dim / 2 = value_dim / 2. Of each distance l = j - i and pair, b_lc is a
// precision and g_lc a gain, tables of h numbers a distance, table_stride apart:
//   D_ij = sum_c b_lc |q_i - g_l k_j|_c^2,   o_ic = sum_j w_ij b_lc g_lc v_jc / sum_j w_ij b_lc
//   robust  w_ij = 1 / (1 + scale D_ij),   exponential  w_ij = exp(-scale D_ij)
// Distances beyond the tables count as the furthest in them. Rows are those of a LagAttentionTask, which has no softmax
// here.
SENNIT_KERNEL_TABLE(LagAttention, pair_filter)

}  // namespace sennit::kernels
