#include "kernels/paired_backward.h"
#include "kernels/paired_forward.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

void forward(const AttentionTask& t, const PanelKernels& panels, const float* packed, int64_t begin, int64_t end,
             float* o, int64_t o_stride, float* stat, float* scratch) {
  PanelSteps steps(panels);
  forward(t, panels, packed, begin, end, o, o_stride, stat, scratch, steps);
}

void backward(const AttentionTask& t, const PanelKernels& panels, const float* packed, const float* o, const float* d_o,
              int64_t o_stride, const float* stat, float* dq, float* dk, float* dv, int64_t dq_stride,
              int64_t dk_stride, int64_t dv_stride, float* scratch) {
  PanelSteps steps(panels);
  backward(t, panels, packed, o, d_o, o_stride, stat, dq, dk, dv, dq_stride, dk_stride, dv_stride, scratch, steps);
}

}  // namespace

const PairedAttention paired_attention_table = {.packed_floats = packed_floats,
                                                .pack = pack,
                                                .forward_floats = forward_floats,
                                                .backward_floats = backward_floats,
                                                .forward = forward,
                                                .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
