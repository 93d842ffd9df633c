#include "kernels/staged_rnn.h"

#include "kernels/chunk.h"
#include "kernels/feedback.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The lanes of one token from channel l: its inputs, what is fed, and the states before.
struct Lanes {
  const float *x, *u, *before;
  int64_t dim, l, lanes;
  float limit;
  SENNIT_INLINE vf in(int gate) const { return load_n(x + gate * dim + l, lanes); }
  SENNIT_INLINE vf p(int gate) const { return in(gate) + load_n(u + gate * dim + l, lanes); }
  SENNIT_INLINE vf old(int state) const { return load_n(before + state * dim + l, lanes); }
};
struct Write {
  float* to;
  int64_t dim, l, lanes;
  SENNIT_INLINE void set(int which, vf value) const { store_n(to + which * dim + l, value, lanes); }
  SENNIT_INLINE vf get(int which) const { return load_n(to + which * dim + l, lanes); }
};

// middle: m. step: the new states from m. step_back: from the gradients d of the new states to those of the gates of
// the second layer and of those not fed (in dp), and to what d knows of the old states. middle_back: the same for the
// first layer, from the gradient dm of m, that of m as a state among it.
template <StagedCell C>
struct Cell;

template <>
struct Cell<StagedCell::lem> {
  static SENNIT_INLINE vf middle(const Lanes& a) {
    return fma(set(a.limit) * sigmoid(a.p(1)), tanh(a.p(2)) - a.old(1), a.old(1));
  }
  static SENNIT_INLINE void step(const Lanes& a, vf m, const Write& to) {
    const vf h = a.old(0);
    to.set(1, m);
    to.set(0, fma(set(a.limit) * sigmoid(a.p(0)), tanh(a.p(3)) - h, h));
  }
  static SENNIT_INLINE void step_back(const Lanes& a, const Write& d, const Write& dp) {
    const vf s = sigmoid(a.p(0)), t = tanh(a.p(3)), dh = d.get(0), open = set(a.limit) * s;
    dp.set(3, through_tanh(t, dh * open));
    dp.set(0, through_sigmoid(s, dh * (t - a.old(0)) * set(a.limit)));
    d.set(0, fnma(open, dh, dh));
  }
  static SENNIT_INLINE void middle_back(const Lanes& a, vf dm, const Write& d, const Write& dp) {
    const vf s = sigmoid(a.p(1)), t = tanh(a.p(2)), open = set(a.limit) * s, all = dm + d.get(1);
    dp.set(1, through_sigmoid(s, all * (t - a.old(1)) * set(a.limit)));
    dp.set(2, through_tanh(t, all * open));
    d.set(1, fnma(open, all, all));
  }
};

template <>
struct Cell<StagedCell::cfc> {
  static SENNIT_INLINE vf middle(const Lanes& a) { return tanh(a.p(0)); }
  static SENNIT_INLINE void step(const Lanes& a, vf, const Write& to) {
    const vf s = sigmoid(set(-a.limit) * a.p(1)), end = tanh(a.p(3));
    to.set(0, fma(s, tanh(a.p(2)) - end, end));
  }
  static SENNIT_INLINE void step_back(const Lanes& a, const Write& d, const Write& dp) {
    const vf s = sigmoid(set(-a.limit) * a.p(1)), start = tanh(a.p(2)), end = tanh(a.p(3)), dh = d.get(0);
    dp.set(1, through_sigmoid(s, dh * (start - end)) * set(-a.limit));
    dp.set(2, through_tanh(start, dh * s));
    dp.set(3, through_tanh(end, fnma(dh, s, dh)));
    d.set(0, zero());
  }
  static SENNIT_INLINE void middle_back(const Lanes& a, vf dm, const Write&, const Write& dp) {
    dp.set(0, through_tanh(tanh(a.p(0)), dm));
  }
};

template <>
struct Cell<StagedCell::elm> {
  static SENNIT_INLINE vf middle(const Lanes& a) { return max(a.p(0), zero()); }
  static SENNIT_INLINE void step(const Lanes& a, vf, const Write& to) {
    to.set(0, fma(a.in(3), tanh(a.p(1)), a.in(2) * a.old(0)));
  }
  static SENNIT_INLINE void step_back(const Lanes& a, const Write& d, const Write& dp) {
    const vf t = tanh(a.p(1)), dh = d.get(0);
    dp.set(1, through_tanh(t, dh * a.in(3)));
    dp.set(2, dh * a.old(0));
    dp.set(3, dh * t);
    d.set(0, dh * a.in(2));
  }
  static SENNIT_INLINE void middle_back(const Lanes& a, vf dm, const Write&, const Write& dp) {
    dp.set(0, select(less(zero(), a.p(0)), dm, zero()));
  }
};

template <StagedCell C>
SENNIT_INLINE void step(const StagedRnnTask& t, int64_t i, const float* from, float* to, float* u, float* m) {
  constexpr int64_t kFirst = staged_first(C), kSecond = staged_second(C);
  const int64_t d = t.dim, gates = kStagedGates * d;
  const auto lanes_at = [&](int64_t l, int64_t k) { return Lanes{t.x + i * t.x_stride, u, from, d, l, k, t.limit}; };
  feed_back(from, t.r, d, kFirst * d, gates, u);
  for_lanes(d, [&](int64_t l, int64_t k) { store_n(m + l, Cell<C>::middle(lanes_at(l, k)), k); });
  feed_back(m, t.r + kFirst * d, d, kSecond * d, gates, u + kFirst * d);
  for_lanes(d, [&](int64_t l, int64_t k) { Cell<C>::step(lanes_at(l, k), load_n(m + l, k), {to, d, l, k}); });
}

template <StagedCell C>
void forward_with(const StagedRnnTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  float *u = scratch, *m = scratch + kStagedGates * t.dim;
  copy(s0, s_end, staged_states(C) * t.dim);
  for (int64_t i = 0; i < t.length; ++i) {
    step<C>(t, i, s_end, s_end, u, m);
    copy(s_end, y + i * y_stride, t.dim);
  }
}

struct Backward {
  float *states, *u, *m, *d, *dm;  // [length + 1, states dim], [length, 4 dim]: dp takes the place of u, [length, dim]
  SENNIT_INLINE Backward(const StagedRnnTask& t, Scratch& pieces) {
    const int64_t state = staged_states(t.cell) * t.dim;
    states = pieces.take((t.length + 1) * state);
    u = pieces.take(t.length * kStagedGates * t.dim);
    m = pieces.take(t.length * t.dim);
    d = pieces.take(state);
    dm = pieces.take(t.dim + kStagedGates * t.dim);  // and the gradients of one token's gates
  }
};

template <StagedCell C>
void backward_with(const StagedRnnTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   float* dx, float* dr, float* ds0, float* scratch) {
  constexpr int64_t kFirst = staged_first(C), kSecond = staged_second(C), kStates = staged_states(C);
  const int64_t d = t.dim, gates = kStagedGates * d, state = kStates * d;
  Scratch pieces(scratch);
  const Backward w(t, pieces);
  float* dp = w.dm + d;
  copy(s0, w.states, state);
  for (int64_t i = 0; i < t.length; ++i)
    step<C>(t, i, w.states + i * state, w.states + (i + 1) * state, w.u + i * gates, w.m + i * d);
  copy(ds_end, w.d, state);
  for (int64_t i = t.length - 1; i >= 0; --i) {
    float* u = w.u + i * gates;
    const auto lanes_at = [&](int64_t l, int64_t k) {
      return Lanes{t.x + i * t.x_stride, u, w.states + i * state, d, l, k, t.limit};
    };
    for_lanes(d, [&](int64_t l, int64_t k) {
      store_n(w.d + l, load_n(w.d + l, k) + load_n(dy + i * dy_stride + l, k), k);
      Cell<C>::step_back(lanes_at(l, k), {w.d, d, l, k}, {dp, d, l, k});
    });
    for (int64_t p = 0; p < d; ++p) w.dm[p] = dot(t.r + p * gates + kFirst * d, dp + kFirst * d, kSecond * d);
    for_lanes(d, [&](int64_t l, int64_t k) {
      Cell<C>::middle_back(lanes_at(l, k), load_n(w.dm + l, k), {w.d, d, l, k}, {dp, d, l, k});
    });
    for (int64_t p = 0; p < d; ++p) w.d[p] += dot(t.r + p * gates, dp, kFirst * d);
    for_lanes(gates, [&](int64_t l, int64_t k) {
      add_n(dx + i * t.x_stride + l, load_n(dp + l, k), k);
      store_n(u + l, load_n(dp + l, k), k);
    });
  }
  multiply({d, kFirst * d, t.length}, {w.states, 1, state}, {w.u, gates}, {.p = dr, .stride = gates, .start = dr});
  float* second = dr + kFirst * d;
  multiply({d, kSecond * d, t.length}, {w.m, 1, d}, {w.u + kFirst * d, gates},
           {.p = second, .stride = gates, .start = second});
  if (ds0) for_lanes(state, [&](int64_t l, int64_t k) { add_n(ds0 + l, load_n(w.d + l, k), k); });
}

void forward(const StagedRnnTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  switch (t.cell) {
    case StagedCell::lem:
      return forward_with<StagedCell::lem>(t, s0, s_end, y, y_stride, scratch);
    case StagedCell::cfc:
      return forward_with<StagedCell::cfc>(t, s0, s_end, y, y_stride, scratch);
    case StagedCell::elm:
      return forward_with<StagedCell::elm>(t, s0, s_end, y, y_stride, scratch);
  }
}

void backward(const StagedRnnTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
              float* dx, float* dr, float* ds0, float* scratch) {
  switch (t.cell) {
    case StagedCell::lem:
      return backward_with<StagedCell::lem>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
    case StagedCell::cfc:
      return backward_with<StagedCell::cfc>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
    case StagedCell::elm:
      return backward_with<StagedCell::elm>(t, s0, dy, dy_stride, ds_end, dx, dr, ds0, scratch);
  }
}

int64_t scratch_floats(const StagedRnnTask& t) {
  return (kStagedGates + 1) * t.dim;
}
int64_t backward_scratch_floats(const StagedRnnTask& t) {
  Scratch pieces(nullptr);
  Backward(t, pieces);
  return pieces.needed();
}

}  // namespace

const StagedRnn staged_rnn_table = {.scratch_floats = scratch_floats,
                                    .backward_scratch_floats = backward_scratch_floats,
                                    .forward = forward,
                                    .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
