#pragma once
#include <functional>

#include "kernels/gemm.h"
#include "products/product.h"

namespace sennit {

// The panel kernels of a precision that this machine runs best; of AMX's, those that amx_tiles() names.
const kernels::PanelKernels& panel_kernels(Precision precision);
const kernels::PanelKernels& int8_panel_kernels();

inline constexpr int64_t kScratchUnits = 4 << 20;  // of one factor packed at a time: 16 MiB
inline constexpr int64_t kThreadWork = 1 << 18;    // multiplications of units that are worth another thread
inline int64_t panels_in(int64_t length, int64_t width) {
  return (length + width - 1) / width;
}

// A product of packed panels, its tiles shared out among the threads.
void multiply_panels(const kernels::PanelKernels& kernel, const kernels::PanelProduct& whole);

// Writes rows [from, from + k) of panel p of b as kernels/gemm.h lays them out, zeros beyond n and k included.
using MakePanel = std::function<void(int64_t p, int64_t from, int64_t k, float* units)>;

// c [m, n] = a [m, k] b + options.bias, of panels that `make` writes where they are wanted; it is called from several
// threads, for some panels more than once. `from` is a multiple of 1024.
void multiply_made(MatrixView a, int64_t n, float* c, int64_t c_stride, const ProductOptions& options,
                   const MakePanel& make);

}  // namespace sennit
