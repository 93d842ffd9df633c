#include "kernels/diagonal_scan.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

void forward(const DiagonalScanTask& a, const float* h0, float* h_end, float* h, int64_t h_stride) {
  for_lanes(a.channels, [&](int64_t c, int64_t k) {
    vf state = h0 ? load_n(h0 + c, k) : zero();
    for (int64_t t = 0; t < a.length; ++t) {
      state = fma(exp(load_n(a.g + t * a.g_stride + c, k)), state, load_n(a.x + t * a.x_stride + c, k));
      store_n(h + t * h_stride + c, state, k);
    }
    store_n(h_end + c, state, k);
  });
}

void backward(const DiagonalScanTask& a, const float* h0, const float* h, int64_t h_stride, const float* dh, int64_t dh_stride,
              const float* dh_end, float* dx, float* dg, float* dh0) {
  for_lanes(a.channels, [&](int64_t c, int64_t k) {
    vf d = dh_end ? load_n(dh_end + c, k) : zero();
    for (int64_t t = a.length - 1; t >= 0; --t) {
      const vf decay = exp(load_n(a.g + t * a.g_stride + c, k));
      const vf before = t > 0 ? load_n(h + (t - 1) * h_stride + c, k) : h0 ? load_n(h0 + c, k) : zero();
      float *x_place = dx + t * a.x_stride + c, *g_place = dg + t * a.g_stride + c;
      d = d + load_n(dh + t * dh_stride + c, k);
      store_n(x_place, load_n(x_place, k) + d, k);
      d = d * decay;
      store_n(g_place, fma(d, before, load_n(g_place, k)), k);
    }
    if (dh0) store_n(dh0 + c, load_n(dh0 + c, k) + d, k);
  });
}

}  // namespace

const DiagonalScan diagonal_scan_table = {.forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
