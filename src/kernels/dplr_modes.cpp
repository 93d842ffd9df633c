#include "kernels/dplr_modes.h"

#include "kernels/small_products.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

struct Complex {
  vf re, im;
};
SENNIT_INLINE Complex at(const float* x, int64_t modes, int64_t n, int64_t lanes) {
  return {load_n(x + n, lanes), load_n(x + modes + n, lanes)};
}
SENNIT_INLINE void put(float* x, int64_t modes, int64_t n, Complex z, int64_t lanes) {
  store_n(x + n, z.re, lanes);
  store_n(x + modes + n, z.im, lanes);
}
SENNIT_INLINE void add_to(float* x, int64_t modes, int64_t n, Complex z, int64_t lanes) {
  add_n(x + n, z.re, lanes);
  add_n(x + modes + n, z.im, lanes);
}
SENNIT_INLINE Complex times(Complex x, Complex y) {
  return {fnma(x.im, y.im, x.re * y.re), fma(x.re, y.im, x.im * y.re)};
}
SENNIT_INLINE Complex conjugate(Complex x) {
  return {x.re, -x.im};
}
SENNIT_INLINE Complex scaled(Complex x, vf s) {
  return {x.re * s, x.im * s};
}
SENNIT_INLINE Complex plus(Complex x, Complex y) {
  return {x.re + y.re, x.im + y.im};
}
SENNIT_INLINE vf real_product(Complex x, Complex y) {
  return fnma(x.im, y.im, x.re * y.re);
}

// sum_n Re(x_n h_n)
float real_sum(const float* x, const float* h, int64_t modes) {
  float total = 0;
  for_lanes(modes, [&](int64_t n, int64_t k) {
    total += sum(keep_n(real_product(at(x, modes, n, k), at(h, modes, n, k)), k));
  });
  return total;
}

// sum_n Re(conj(x_n) h_n)
float real_sum_conjugate(const float* x, const float* h, int64_t modes) {
  float total = 0;
  for_lanes(modes, [&](int64_t n, int64_t k) {
    total += sum(keep_n(real_product(conjugate(at(x, modes, n, k)), at(h, modes, n, k)), k));
  });
  return total;
}

// 1 + 2 sum_n Re(p_n e_n): what s' is divided by, since h holds a share of it.
float coupling(const DplrModesTask& t) {
  return 1 + 2 * real_sum(t.p, t.e, t.modes);
}

// h through one input; `s` is the old sum, in, and the new one, out.
SENNIT_INLINE void step(const DplrModesTask& t, float u, float k, const float* h, float* to, float& s) {
  const int64_t m = t.modes;
  for_lanes(m, [&](int64_t n, int64_t l) {
    Complex x = times(at(t.a, m, n, l), at(h, m, n, l));
    x = plus(x, scaled(at(t.b, m, n, l), set(u)));
    put(to, m, n, plus(x, scaled(at(t.e, m, n, l), set(-s))), l);
  });
  const float next = 2 * real_sum(t.p, to, m) / k;
  for_lanes(
      m, [&](int64_t n, int64_t l) { put(to, m, n, plus(at(to, m, n, l), scaled(at(t.e, m, n, l), set(-next))), l); });
  s = next;
}

void forward(const DplrModesTask& t, const float* h0, float* h_end, float* y, int64_t y_stride) {
  copy(h0, h_end, 2 * t.modes);
  const float k = coupling(t);
  for (int64_t i = 0; i < t.length; ++i) {
    float s = 2 * real_sum(t.p, h_end, t.modes);  // of the state as it is kept, so that a cut changes no bit
    step(t, t.u[i * t.u_stride], k, h_end, h_end, s);
    y[i * y_stride] = real_sum(t.c, h_end, t.modes);
  }
}

// With r = s + s', h' = a h + b u - e r and s' k = 2 Re(p (a h + b u - e s)): the gradient of h' reaches r through e, r
// reaches s' and s, s' reaches what is before the division, which is h' + e s'.
void backward(const DplrModesTask& t, const float* h0, const float* dy, int64_t dy_stride, const float* dh_end,
              const DplrModes::Gradients& into, float* dh0, float* scratch) {
  const int64_t m = t.modes, size = 2 * m;
  float *states = scratch, *d = scratch + (t.length + 1) * size;
  copy(h0, states, size);
  copy(dh_end, d, size);
  const float k = coupling(t);
  for (int64_t i = 0; i < t.length; ++i) {
    float s = 2 * real_sum(t.p, states + i * size, m);
    step(t, t.u[i * t.u_stride], k, states + i * size, states + (i + 1) * size, s);
  }
  float dk = 0;
  for (int64_t i = t.length - 1; i >= 0; --i) {
    const float *before = states + i * size, *after = before + size;
    const float old = 2 * real_sum(t.p, before, m), now = 2 * real_sum(t.p, after, m), out = dy[i * dy_stride];
    // d becomes the gradient of h'; a pair of gradients is a complex number g, and Re(x h) gives h conj(x).
    for_lanes(m, [&](int64_t n, int64_t l) {
      add_to(into.c, m, n, scaled(conjugate(at(after, m, n, l)), set(out)), l);
      add_to(d, m, n, scaled(conjugate(at(t.c, m, n, l)), set(out)), l);
    });
    const float d_now = -real_sum_conjugate(t.e, d, m), dx = 2 * d_now / k;  // through -e s'; of x in 2 Re(p x) / k
    dk -= d_now * now / k;
    float du = 0, d_old = 0;
    for_lanes(m, [&](int64_t n, int64_t l) {
      const Complex e = at(t.e, m, n, l), p = at(t.p, m, n, l), a = at(t.a, m, n, l), h = at(before, m, n, l);
      const Complex held = plus(at(after, m, n, l), scaled(e, set(now)));  // before the division
      add_to(into.p, m, n, scaled(conjugate(held), set(dx)), l);
      const Complex g_after = at(d, m, n, l), g = plus(g_after, scaled(conjugate(p), set(dx)));
      add_to(into.e, m, n, plus(scaled(g_after, set(-now)), scaled(g, set(-old))), l);
      add_to(into.b, m, n, scaled(g, set(t.u[i * t.u_stride])), l);
      add_to(into.a, m, n, times(conjugate(h), g), l);
      du += sum(keep_n(real_product(conjugate(at(t.b, m, n, l)), g), l));
      d_old -= sum(keep_n(real_product(conjugate(e), g), l));
      put(d, m, n, times(conjugate(a), g), l);
    });
    into.u[i * t.u_stride] += du;
    for_lanes(m, [&](int64_t n, int64_t l) {
      add_to(into.p, m, n, scaled(conjugate(at(before, m, n, l)), set(2 * d_old)), l);
      add_to(d, m, n, scaled(conjugate(at(t.p, m, n, l)), set(2 * d_old)), l);
    });
  }
  for_lanes(m, [&](int64_t n, int64_t l) {
    add_to(into.p, m, n, scaled(conjugate(at(t.e, m, n, l)), set(2 * dk)), l);
    add_to(into.e, m, n, scaled(conjugate(at(t.p, m, n, l)), set(2 * dk)), l);
  });
  if (dh0) for_lanes(size, [&](int64_t n, int64_t l) { add_n(dh0 + n, load_n(d + n, l), l); });
}

int64_t backward_scratch_floats(const DplrModesTask& t) {
  return (t.length + 2) * 2 * t.modes;
}

}  // namespace

const DplrModes dplr_modes_table = {
    .backward_scratch_floats = backward_scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
