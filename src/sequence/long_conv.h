#pragma once
#include "sequence/batch.h"

namespace sennit {

// Causal convolution of every channel with a long filter of its own, by Fourier transforms where sequences are long:
//   y[t, c] = sum_{k < taps} h[k, c] x[t - k, c]
// x [N, C], h [taps, C]. State: the rows of x that a filter of `window` taps still reaches (long_conv_state); 0: as
// many as h has. h may be shorter than the window where no sequence is longer than h.
Var long_conv(const Var& x, const Var& h, const Batch& batch, size_t field, int64_t window = 0);
StateField long_conv_state(std::string name, int64_t taps, int64_t channels);
int64_t long_conv_flops(int64_t n, int64_t taps, int64_t channels);  // over one fresh sequence of n tokens

}  // namespace sennit
