#include "kernels/paired_attention.h"

#include "kernels/paired_backward.h"
#include "kernels/paired_forward.h"

namespace sennit::kernels::SENNIT_LEVEL {

const PairedAttention paired_attention_table = {.packed_floats = packed_floats,
                                                .pack = pack,
                                                .forward_floats = forward_floats,
                                                .backward_floats = backward_floats,
                                                .forward = forward,
                                                .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
