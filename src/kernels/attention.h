#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Exact softmax attention of one head over one segment, o_i = sum_j softmax_j(s_ij) v_j with
// s_ij = scale q_i . k_j - alibi |i + offset - j| over the keys that query i sees, in blocks of keys with a running
// maximum (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867; Dao et al.,
// "FlashAttention", arXiv:2205.14135), so that nothing of size queries x keys is stored. The bias is that of
// Press et al., "Train Short, Test Long" (arXiv:2108.12409).
struct AttentionTask {
  const float *q, *k, *v;  // [queries, key_dim], [keys, key_dim], [keys, value_dim]; rows q_stride, ... floats apart
  int64_t q_stride, k_stride, v_stride;
  int64_t queries, keys, key_dim, value_dim;  // dimensions of 1 or more
  int64_t offset = 0;                         // position of query 0 minus position of key 0
  bool causal = false;                        // query i sees key j only if j <= i + offset
  int64_t window = 0;                         // 0: no limit; else only if j > i + offset - window
  float scale = 1;
  float alibi = 0;
};

// Query rows that a call of `forward` works on at a time: ranges of a multiple of it waste nothing.
inline constexpr int64_t kAttentionRows = 96;

struct Attention {
  int64_t (*scratch_floats)(const AttentionTask& task);  // enough for either call

  // Rows [begin, end) of o (row i at o + i * o_stride) and lse[i] = ln sum_j exp(s_ij); o = 0 and lse = -inf where a
  // query sees nothing. A row depends on its query and the keys it sees alone, to the bit: key blocks are counted from
  // key 0, and what is masked takes no part.
  void (*forward)(const AttentionTask& task, int64_t begin, int64_t end, float* o, int64_t o_stride, float* lse,
                  float* scratch);

  // Adds the gradients of all queries to dq, dk, dv, given d_o (rows as those of o) and what forward returned:
  // p = exp(s - lse), dv_j += sum_i p_ij do_i, ds = p (do_i . v_j - do_i . o_i), dq_i += scale sum_j ds_ij k_j,
  // dk_j += scale sum_i ds_ij q_i.
  void (*backward)(const AttentionTask& task, const float* o, const float* d_o, int64_t o_stride, const float* lse,
                   float* dq, float* dk, float* dv, int64_t dq_stride, int64_t dk_stride, int64_t dv_stride,
                   float* scratch);
};

SENNIT_KERNEL_TABLE(Attention, attention)

}  // namespace sennit::kernels
