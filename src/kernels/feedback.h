#pragma once
// What recurrent cells feed back through a matrix. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

template <int J>
SENNIT_INLINE void feed_back_columns(const float* h, const float* r, int64_t dim, int64_t stride, float* u, int64_t l,
                                     int64_t lanes) {
  vf sums[J];
  for (int j = 0; j < J; ++j) sums[j] = zero();
  for (int64_t p = 0; p < dim; ++p)
    for (int j = 0; j < J; ++j) sums[j] = fma(set(h[p]), load_n(r + p * stride + l + j * kLanes, lanes), sums[j]);
  for (int j = 0; j < J; ++j) store_n(u + l + j * kLanes, sums[j], lanes);
}

// u [n] = h [dim] times r [dim, n], rows `stride` apart
[[maybe_unused]] void feed_back(const float* h, const float* r, int64_t dim, int64_t n, int64_t stride, float* u) {
  int64_t l = 0;
  for (; l + 8 * kLanes <= n; l += 8 * kLanes) feed_back_columns<8>(h, r, dim, stride, u, l, kLanes);
  for (; l + kLanes <= n; l += kLanes) feed_back_columns<1>(h, r, dim, stride, u, l, kLanes);
  if (l < n) feed_back_columns<1>(h, r, dim, stride, u, l, n - l);
}

SENNIT_INLINE vf through_sigmoid(vf s, vf d) {
  return s * (set(1) - s) * d;
}
SENNIT_INLINE vf through_tanh(vf t, vf d) {
  return fnma(t, t, set(1)) * d;
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
