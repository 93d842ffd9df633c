#include "kernels/rnn.h"

#include "kernels/chunk.h"
#include "kernels/feedback.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The lanes of one token from channel l: its inputs, what is fed back, and the states before.
struct Lanes {
  const float *x, *u, *before;
  int64_t dim, l, lanes;
  SENNIT_INLINE vf in(int gate) const { return load_n(x + gate * dim + l, lanes); }
  SENNIT_INLINE vf fed(int gate) const { return load_n(u + gate * dim + l, lanes); }
  SENNIT_INLINE vf p(int gate) const { return in(gate) + fed(gate); }
  SENNIT_INLINE vf old(int state) const { return load_n(before + state * dim + l, lanes); }
};
struct Write {
  float* to;
  int64_t dim, l, lanes;
  SENNIT_INLINE void set(int which, vf value) const { store_n(to + which * dim + l, value, lanes); }
  SENNIT_INLINE vf get(int which) const { return load_n(to + which * dim + l, lanes); }
};

SENNIT_INLINE vf one() {
  return set(1);
}

// step: the new states. back: from the gradients of the new states (in `d`, that of h complete) to those of the old
// ones, less what is fed back; `dp` receives those of the gates, and in the same order `du` those of what is fed back.
template <RnnCell C>
struct Cell;

template <>
struct Cell<RnnCell::elman> {
  static SENNIT_INLINE void step(const Lanes& a, const Write& to) { to.set(0, tanh(a.p(0))); }
  static SENNIT_INLINE void back(const Lanes& a, const Write& d, const Write& dp, const Write& du) {
    const vf g = through_tanh(tanh(a.p(0)), d.get(0));
    dp.set(0, g), du.set(0, g), d.set(0, zero());
  }
};

template <>
struct Cell<RnnCell::lstm> {
  static SENNIT_INLINE void step(const Lanes& a, const Write& to) {
    const vf c = fma(sigmoid(a.p(1)), a.old(1), sigmoid(a.p(0)) * tanh(a.p(2)));
    to.set(1, c);
    to.set(0, sigmoid(a.p(3)) * tanh(c));
  }
  static SENNIT_INLINE void back(const Lanes& a, const Write& d, const Write& dp, const Write& du) {
    const vf i = sigmoid(a.p(0)), f = sigmoid(a.p(1)), z = tanh(a.p(2)), o = sigmoid(a.p(3));
    const vf top = tanh(fma(f, a.old(1), i * z)), dh = d.get(0), dc = d.get(1) + through_tanh(top, o * dh);
    const vf gates[] = {through_sigmoid(i, dc * z), through_sigmoid(f, dc * a.old(1)), through_tanh(z, dc * i),
                        through_sigmoid(o, dh * top)};
    for (int g = 0; g < 4; ++g) dp.set(g, gates[g]), du.set(g, gates[g]);
    d.set(0, zero()), d.set(1, dc * f);
  }
};

template <>
struct Cell<RnnCell::gru> {
  static SENNIT_INLINE void step(const Lanes& a, const Write& to) {
    const vf n = tanh(fma(sigmoid(a.p(0)), a.fed(2), a.in(2)));
    to.set(0, fma(sigmoid(a.p(1)), a.old(0) - n, n));
  }
  static SENNIT_INLINE void back(const Lanes& a, const Write& d, const Write& dp, const Write& du) {
    const vf r = sigmoid(a.p(0)), z = sigmoid(a.p(1)), n = tanh(fma(r, a.fed(2), a.in(2))), dh = d.get(0);
    const vf dn = through_tanh(n, dh * (one() - z)), dr = through_sigmoid(r, dn * a.fed(2)),
             dz = through_sigmoid(z, dh * (a.old(0) - n));
    dp.set(0, dr), dp.set(1, dz), dp.set(2, dn);
    du.set(0, dr), du.set(1, dz), du.set(2, dn * r);
    d.set(0, dh * z);
  }
};

template <>
struct Cell<RnnCell::slstm> {
  struct Gates {
    vf open, keep, z, o, c, n;
    vmask keeps;  // whether the forget gate holds the maximum
    SENNIT_INLINE explicit Gates(const Lanes& a) {
      const vf faded = a.old(3) - softplus(-a.p(1));
      keeps = less(a.p(0), faded);
      const vf m = select(keeps, faded, a.p(0));
      open = exp(a.p(0) - m), keep = exp(faded - m), z = tanh(a.p(2)), o = sigmoid(a.p(3));
      c = fma(keep, a.old(1), open * z), n = fma(keep, a.old(2), open);
    }
  };
  static SENNIT_INLINE void step(const Lanes& a, const Write& to) {
    const Gates g(a);
    to.set(3, select(g.keeps, a.old(3) - softplus(-a.p(1)), a.p(0)));
    to.set(1, g.c), to.set(2, g.n);
    to.set(0, g.o * g.c / g.n);
  }
  static SENNIT_INLINE void back(const Lanes& a, const Write& d, const Write& dp, const Write& du) {
    const Gates g(a);
    const vf mean = g.c / g.n, dh = d.get(0), dc = d.get(1) + dh * g.o / g.n, dn = d.get(2) - dh * g.o * mean / g.n,
             dm = d.get(3);
    const vf opened = g.open * fma(dc, g.z, dn), kept = g.keep * fma(dc, a.old(1), dn * a.old(2));
    // The gate that holds the maximum is a weight of 1: what it gains there, the other loses.
    const vf di = select(g.keeps, opened, dm - kept), da = select(g.keeps, dm - opened, kept);
    const vf gates[] = {di, da * sigmoid(-a.p(1)), through_tanh(g.z, dc * g.open), through_sigmoid(g.o, dh * mean)};
    for (int i = 0; i < 4; ++i) dp.set(i, gates[i]), du.set(i, gates[i]);
    d.set(0, zero()), d.set(1, dc * g.keep), d.set(2, dn * g.keep), d.set(3, da);
  }
};

void begin_state(const RnnTask& t, const float* s0, float* s) {
  const int64_t size = rnn_states(t.cell) * t.dim;
  copy(s0, s, size);
  if (!s0 && t.cell == RnnCell::slstm)
    for_lanes(t.dim, [&](int64_t l, int64_t k) { store_n(s + 3 * t.dim + l, set(-__builtin_inff()), k); });
}

template <RnnCell C>
SENNIT_INLINE void step(const RnnTask& t, int64_t i, const float* from, float* to, float* u) {
  feed_back(from, t.r, t.dim, rnn_gates(C) * t.dim, rnn_gates(C) * t.dim, u);
  for_lanes(t.dim, [&](int64_t l, int64_t k) {
    Cell<C>::step({t.x + i * t.x_stride, u, from, t.dim, l, k}, {to, t.dim, l, k});
  });
}

template <RnnCell C>
void forward_with(const RnnTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  begin_state(t, s0, s_end);
  for (int64_t i = 0; i < t.length; ++i) {
    step<C>(t, i, s_end, s_end, scratch);
    copy(s_end, y + i * y_stride, t.dim);
  }
}

struct Backward {
  float *states, *u;  // [length + 1, states dim], [length, gates dim]: du takes the place of u
  float *d, *dp;      // [states dim], [gates dim]
  SENNIT_INLINE Backward(const RnnTask& t, Scratch& pieces) {
    const int64_t state = rnn_states(t.cell) * t.dim, gates = rnn_gates(t.cell) * t.dim;
    states = pieces.take((t.length + 1) * state);
    u = pieces.take(t.length * gates);
    d = pieces.take(state);
    dp = pieces.take(gates);
  }
};

template <RnnCell C>
void backward_with(const RnnTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   float* dx, float* dr, float* ds0, float* scratch) {
  const int64_t d = t.dim, state = rnn_states(C) * d, gates = rnn_gates(C) * d;
  Scratch pieces(scratch);
  const Backward w(t, pieces);
  begin_state(t, s0, w.states);
  for (int64_t i = 0; i < t.length; ++i)
    step<C>(t, i, w.states + i * state, w.states + (i + 1) * state, w.u + i * gates);
  copy(ds_end, w.d, state);
  for (int64_t i = t.length - 1; i >= 0; --i) {
    float *u = w.u + i * gates, *to = dx + i * t.x_stride;
    for_lanes(d, [&](int64_t l, int64_t k) {
      store_n(w.d + l, load_n(w.d + l, k) + load_n(dy + i * dy_stride + l, k), k);
      Cell<C>::back({t.x + i * t.x_stride, u, w.states + i * state, d, l, k}, {w.d, d, l, k}, {w.dp, d, l, k},
                    {u, d, l, k});
    });
    for_lanes(gates, [&](int64_t l, int64_t k) { add_n(to + l, load_n(w.dp + l, k), k); });
    for (int64_t p = 0; p < d; ++p) w.d[p] += dot(t.r + p * gates, u, gates);
  }
  multiply({d, gates, t.length}, {w.states, 1, state}, {w.u, gates}, {.p = dr, .stride = gates, .start = dr});
  if (ds0) for_lanes(state, [&](int64_t l, int64_t k) { add_n(ds0 + l, load_n(w.d + l, k), k); });
}

void forward(const RnnTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  switch (t.cell) {
    case RnnCell::elman:
      return forward_with<RnnCell::elman>(t, s0, s_end, y, y_stride, scratch);
    case RnnCell::lstm:
      return forward_with<RnnCell::lstm>(t, s0, s_end, y, y_stride, scratch);
    case RnnCell::gru:
      return forward_with<RnnCell::gru>(t, s0, s_end, y, y_stride, scratch);
    case RnnCell::slstm:
      return forward_with<RnnCell::slstm>(t, s0, s_end, y, y_stride, scratch);
  }
}

void backward(const RnnTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end, float* dx,
              float* dr, float* ds0, float* scratch) {
  switch (t.cell) {
    case RnnCell::elman:
      return backward_with<RnnCell::elman>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
    case RnnCell::lstm:
      return backward_with<RnnCell::lstm>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
    case RnnCell::gru:
      return backward_with<RnnCell::gru>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
    case RnnCell::slstm:
      return backward_with<RnnCell::slstm>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
  }
}

int64_t scratch_floats(const RnnTask& t) {
  return rnn_gates(t.cell) * t.dim;
}

int64_t backward_scratch_floats(const RnnTask& t) {
  Scratch pieces(nullptr);
  Backward(t, pieces);
  return pieces.needed();
}

}  // namespace

const Rnn rnn_table = {.scratch_floats = scratch_floats,
                       .backward_scratch_floats = backward_scratch_floats,
                       .forward = forward,
                       .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
