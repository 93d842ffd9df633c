#pragma once
#include "sequence/batch.h"

namespace sennit {

// Causal sum with a matrix for each lag:
//   y[t] = sum_{l <= t, l < taps} x[t - l] W_l
// x [N, C], w [taps C, D]: W_0 first. State: the rows of x that `taps` lags still reach (long_conv_state).
Var lag_products(const Var& x, const Var& w, const Batch& batch, size_t field);
int64_t lag_products_flops(int64_t n, int64_t taps, int64_t channels, int64_t out);  // over one fresh sequence

}  // namespace sennit
