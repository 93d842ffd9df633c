#pragma once
#include <functional>

#include "kernels/gemm.h"
#include "products/product.h"

namespace sennit {

// The panel kernels of a precision that this machine runs best; of AMX's, those that amx_tiles() names.
const kernels::PanelKernels& panel_kernels(Precision precision);

// Writes rows [from, from + k) of panel p of b as kernels/gemm.h lays them out, zeros beyond n and k included.
using MakePanel = std::function<void(int64_t p, int64_t from, int64_t k, float* units)>;

// c [m, n] = a [m, k] b + options.bias, of panels that `make` writes where they are wanted; it is called from several
// threads, for some panels more than once. `from` is a multiple of 1024.
void multiply_made(MatrixView a, int64_t n, float* c, int64_t c_stride, const ProductOptions& options,
                   const MakePanel& make);

}  // namespace sennit
