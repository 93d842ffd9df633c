#pragma once
#include "kernels/gemm.h"
#include "kernels/gla.h"

namespace sennit::kernels {

// The gated linear attention of gla.h in chunks of kPairedTokens tokens, with products of bf16 pairs through the panels
// of gemm.h: what is a factor of a product is rounded to bf16; decays, sums and the state between chunks are f32. A
// decay is a product of factors of at most 1, as there. s0, s_end, ds_end and the gradients are as there, too.
struct PairedGla {
  int64_t (*forward_floats)(const GlaTask& task);   // of scratch
  int64_t (*backward_floats)(const GlaTask& task);  // grows with length
  void (*forward)(const GlaTask& task, const PanelKernels& panels, const float* s0, float* s_end, float* y,
                  int64_t y_stride, float* scratch);
  void (*backward)(const GlaTask& task, const PanelKernels& panels, const float* s0, const float* dy, int64_t dy_stride,
                   const float* ds_end, const Gla::Gradients& into, float* ds0, float* scratch);
};

inline constexpr int64_t kPairedTokens = 64;  // in a chunk

SENNIT_KERNEL_TABLE(PairedGla, paired_gla)

}  // namespace sennit::kernels
