#pragma once
#include <functional>

#include "kernels/gemm.h"
#include "products/product.h"

namespace sennit {

// The panel kernels of a precision that this machine runs best: of AMX's two, those that a timed probe chose.
const kernels::PanelKernels& panel_kernels(Precision precision);

// c [m, n] = a [m, k] b + options.bias, where make(p, units) writes panel p of b as kernels/gemm.h lays it out, zeros
// beyond n and k included; it is called from several threads.
void multiply_made(MatrixView a, int64_t n, float* c, int64_t c_stride, const ProductOptions& options,
                   const std::function<void(int64_t panel, float* units)>& make);

}  // namespace sennit
