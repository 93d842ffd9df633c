#include "kernels/modal_scan.h"

#include "kernels/small_products.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

struct Complex {
  vf re, im;
};
SENNIT_INLINE Complex load_at(const float* re, const float* im, int64_t l, int64_t lanes) {
  return {load_n(re + l, lanes), load_n(im + l, lanes)};
}

// h through one input; h_end may be h.
SENNIT_INLINE void step(const ModalScanTask& t, float u, const float* h, float* h_end) {
  for_lanes(t.modes, [&](int64_t n, int64_t lanes) {
    const Complex l = load_at(t.lr, t.li, n, lanes), s = load_at(h, h + t.modes, n, lanes);
    store_n(h_end + n, fma(l.re, s.re, fnma(l.im, s.im, set(u))), lanes);
    store_n(h_end + t.modes + n, fma(l.re, s.im, l.im * s.re), lanes);
  });
}

void forward(const ModalScanTask& t, const float* h0, float* h_end, float* y, int64_t y_stride) {
  copy(h0, h_end, 2 * t.modes);
  for (int64_t i = 0; i < t.length; ++i) {
    step(t, t.u[i * t.u_stride], h_end, h_end);
    float total = 0;
    for_lanes(t.modes, [&](int64_t n, int64_t lanes) {
      const Complex w = load_at(t.wr, t.wi, n, lanes), s = load_at(h_end, h_end + t.modes, n, lanes);
      total += sum(keep_n(fnma(w.im, s.im, w.re * s.re), lanes));
    });
    y[i * y_stride] = total;
  }
}

void backward(const ModalScanTask& t, const float* h0, const float* dy, int64_t dy_stride, const float* dh_end,
              const ModalScan::Gradients& into, float* dh0, float* scratch) {
  const int64_t size = 2 * t.modes;
  float *states = scratch, *d = scratch + (t.length + 1) * size;  // [length + 1, 2, modes], [2, modes]
  copy(h0, states, size);
  copy(dh_end, d, size);
  for (int64_t i = 0; i < t.length; ++i) step(t, t.u[i * t.u_stride], states + i * size, states + (i + 1) * size);
  for (int64_t i = t.length - 1; i >= 0; --i) {
    const float *before = states + i * size, *after = before + size;
    const vf out = set(dy[i * dy_stride]);
    float du = 0;
    for_lanes(t.modes, [&](int64_t n, int64_t lanes) {
      const Complex l = load_at(t.lr, t.li, n, lanes), w = load_at(t.wr, t.wi, n, lanes);
      const Complex old = load_at(before, before + t.modes, n, lanes), now = load_at(after, after + t.modes, n, lanes);
      const vf re = fma(w.re, out, load_n(d + n, lanes)), im = fnma(w.im, out, load_n(d + t.modes + n, lanes));
      add_n(into.wr + n, now.re * out, lanes);
      add_n(into.wi + n, -(now.im * out), lanes);
      add_n(into.lr + n, fma(re, old.re, im * old.im), lanes);
      add_n(into.li + n, fnma(re, old.im, im * old.re), lanes);
      du += sum(keep_n(re, lanes));
      store_n(d + n, fma(l.re, re, l.im * im), lanes);
      store_n(d + t.modes + n, fnma(l.im, re, l.re * im), lanes);
    });
    into.u[i * t.u_stride] += du;
  }
  if (dh0) for_lanes(size, [&](int64_t n, int64_t lanes) { add_n(dh0 + n, load_n(d + n, lanes), lanes); });
}

int64_t backward_scratch_floats(const ModalScanTask& t) {
  return (t.length + 2) * 2 * t.modes;
}

}  // namespace

const ModalScan modal_scan_table = {
    .backward_scratch_floats = backward_scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
