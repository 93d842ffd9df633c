#include "kernels/lti_scan.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

int64_t scratch_floats(const LtiScanTask& t) {
  return 2 * t.order * kLanes;
}

// now [order] = `through` (before); element (i, j) of the matrix is a[i row + j column]. Four rows at a time.
SENNIT_INLINE void advance(const LtiScanTask& t, int64_t row, int64_t column, const float* before, float* now) {
  int64_t i = 0;
  for (; i + 4 <= t.order; i += 4) {
    vf s[4] = {zero(), zero(), zero(), zero()};
    for (int64_t j = 0; j < t.order; ++j) {
      const vf m = load(before + j * kLanes);
      for (int k = 0; k < 4; ++k) s[k] = fma(set(t.a[(i + k) * row + j * column]), m, s[k]);
    }
    for (int k = 0; k < 4; ++k) store(now + (i + k) * kLanes, s[k]);
  }
  for (; i < t.order; ++i) {
    vf s = zero();
    for (int64_t j = 0; j < t.order; ++j) s = fma(set(t.a[i * row + j * column]), load(before + j * kLanes), s);
    store(now + i * kLanes, s);
  }
}

void forward(const LtiScanTask& t, const float* s0, float* s_end, float* m, int64_t m_stride, float* scratch) {
  float *before = scratch, *now = scratch + t.order * kLanes;
  for_lanes(t.channels, [&](int64_t c, int64_t lanes) {
    for (int64_t i = 0; i < t.order; ++i)
      store(before + i * kLanes, s0 ? load_n(s0 + i * t.state_stride + c, lanes) : zero());
    for (int64_t step = 0; step < t.length; ++step) {
      const vf u = load_n(t.u + step * t.u_stride + c, lanes);
      advance(t, t.order, 1, before, now);
      for (int64_t i = 0; i < t.order; ++i) {
        const vf s = fma(set(t.b[i]), u, load(now + i * kLanes));
        store(before + i * kLanes, s);
        store_n(m + step * m_stride + i * t.state_stride + c, s, lanes);
      }
    }
    for (int64_t i = 0; i < t.order; ++i) store_n(s_end + i * t.state_stride + c, load(before + i * kLanes), lanes);
  });
}

void backward(const LtiScanTask& t, const float* dm, int64_t dm_stride, const float* ds_end, float* du, float* ds0,
              float* scratch) {
  float *d = scratch, *back = scratch + t.order * kLanes;
  for_lanes(t.channels, [&](int64_t c, int64_t lanes) {
    for (int64_t i = 0; i < t.order; ++i)
      store(back + i * kLanes, ds_end ? load_n(ds_end + i * t.state_stride + c, lanes) : zero());
    for (int64_t step = t.length - 1; step >= 0; --step) {
      vf total = zero();
      for (int64_t i = 0; i < t.order; ++i) {
        const vf g = load(back + i * kLanes) + load_n(dm + step * dm_stride + i * t.state_stride + c, lanes);
        store(d + i * kLanes, g);
        total = fma(set(t.b[i]), g, total);
      }
      add_n(du + step * t.u_stride + c, total, lanes);
      advance(t, 1, t.order, d, back);
    }
    for (int64_t i = 0; i < t.order && ds0; ++i) add_n(ds0 + i * t.state_stride + c, load(back + i * kLanes), lanes);
  });
}

}  // namespace

const LtiScan lti_scan_table = {.scratch_floats = scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
