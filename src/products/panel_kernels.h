#pragma once
#include "kernels/gemm.h"
#include "products/precision.h"

namespace sennit {

// The panel kernels of a precision that this machine runs best: of AMX's two, those that a timed probe chose.
const kernels::PanelKernels& panel_kernels(Precision precision);

}  // namespace sennit
