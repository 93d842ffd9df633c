#pragma once
#include "kernels/attention.h"
#include "kernels/gemm.h"

namespace sennit::kernels {

// The softmax attention of attention.h with products of bf16 pairs, through the panels of gemm.h: queries, keys, values,
// weights and their gradients are rounded to bf16 where they are factors; scores, running maxima and all sums are f32.
// A row depends on its query and the keys it sees alone, to the bit, as there. Keys and values to be packed are floats.
struct PairedAttention {
  // Keys and values of one head of a segment, packed once for all queries and all heads that share them, for one of the
  // two. Blocks of kPairedKeys keys [begin, end) can be packed apart.
  int64_t (*packed_floats)(const AttentionTask& task, bool for_backward);
  void (*pack)(const AttentionTask& task, const PanelKernels& panels, bool for_backward, int64_t begin, int64_t end,
               float* packed);

  int64_t (*forward_floats)(const AttentionTask& task);   // of scratch
  int64_t (*backward_floats)(const AttentionTask& task);  // grows with the number of queries
  void (*forward)(const AttentionTask& task, const PanelKernels& panels, const float* packed, int64_t begin, int64_t end,
                  float* o, int64_t o_stride, float* stat, float* scratch);
  void (*backward)(const AttentionTask& task, const PanelKernels& panels, const float* packed, const float* o,
                   const float* d_o, int64_t o_stride, const float* stat, float* dq, float* dk, float* dv,
                   int64_t dq_stride, int64_t dk_stride, int64_t dv_stride, float* scratch);
};

inline constexpr int64_t kPairedKeys = 64;     // in a block
inline constexpr int64_t kPairedQueries = 64;  // of a tile: ranges of a multiple of it waste nothing

SENNIT_KERNEL_TABLE(PairedAttention, paired_attention)

}  // namespace sennit::kernels
