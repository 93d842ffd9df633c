#include "kernels/dplr.h"

#include "kernels/chunk.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kReplay = 16;  // tokens between the states that the backward pass keeps

// The rows of one token, and its decays [key_dim].
struct Token {
  const float *q, *k, *v, *a, *b;
  float* e;
  const float* next;
  SENNIT_INLINE Token(const DplrTask& t, int64_t i, float* decays)
      : q(t.q + i * t.stride),
        k(t.k + i * t.stride),
        v(t.v + i * t.v_stride),
        a(t.a + i * t.stride),
        b(t.b + i * t.stride),
        e(decays),
        next(i + 1 == t.length ? t.next : nullptr) {
    for_lanes(t.key_dim, [&](int64_t l, int64_t lanes) {
      store_n(e + l, exp_decay(load_n(t.g + i * t.stride + l, lanes)), lanes);
    });
  }
};

// J vectors of a^T S, from column l.
template <int J>
SENNIT_INLINE void read_old(const DplrTask& t, const Token& x, const float* s, int64_t l, int64_t lanes, vf (&z)[J]) {
  vf odd[J];
  for (int j = 0; j < J; ++j) z[j] = odd[j] = zero();
  int64_t i = 0;
  const int64_t stride = t.value_dim;
  for (s += l; i + 2 <= t.key_dim; i += 2, s += 2 * stride) {
    if (x.next) fetch_row(x.next + i / 2 * stride + l, J * kLanes);
    for (int j = 0; j < J; ++j) {
      z[j] = fma(set(x.a[i]), load_n(s + j * kLanes, lanes), z[j]);
      odd[j] = fma(set(x.a[i + 1]), load_n(s + stride + j * kLanes, lanes), odd[j]);
    }
  }
  for (int j = 0; j < J; ++j) {
    if (i < t.key_dim) z[j] = fma(set(x.a[i]), load_n(s + j * kLanes, lanes), z[j]);
    z[j] = z[j] + odd[j];
  }
}

// Stores may alias the task and the token: what the loop needs is copied.
template <int J>
SENNIT_INLINE void step_columns(const DplrTask& t, const Token x, const float* from, float* to, float* y, int64_t l,
                                int64_t lanes) {
  const int64_t key_dim = t.key_dim, stride = t.value_dim;
  vf z[J], value[J], out[J];
  read_old(t, x, from, l, lanes, z);
  for (int j = 0; j < J; ++j) value[j] = load_n(x.v + l + j * kLanes, lanes), out[j] = zero();
  from += l, to += l;
  for (int64_t i = 0; i < key_dim; ++i, from += stride, to += stride) {
    const vf key = set(x.k[i]), query = set(x.q[i]), b = set(x.b[i]), decay = set(x.e[i]);
    if (x.next && i % 2 == 0) fetch_row(x.next + (key_dim + i) / 2 * stride + l, J * kLanes);
    for (int j = 0; j < J; ++j) {
      const vf s = fma(key, value[j], fma(b, z[j], decay * load_n(from + j * kLanes, lanes)));
      store_n(to + j * kLanes, s, lanes);
      out[j] = fma(query, s, out[j]);
    }
  }
  for (int j = 0; j < J; ++j) store_n(y + l + j * kLanes, out[j] * set(t.scale), lanes);
}

// S through token i, from `from` to `to`, which may be the same.
void step(const DplrTask& t, int64_t i, float* decays, const float* from, float* to, float* y) {
  const Token x(t, i, decays);
  int64_t l = 0;
  for (; l + 4 * kLanes <= t.value_dim; l += 4 * kLanes) step_columns<4>(t, x, from, to, y, l, kLanes);
  for (; l + kLanes <= t.value_dim; l += kLanes) step_columns<1>(t, x, from, to, y, l, kLanes);
  if (l < t.value_dim) step_columns<1>(t, x, from, to, y, l, t.value_dim - l);
}

void forward(const DplrTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  if (!s0 || t.length == 0) copy(s0, s_end, t.key_dim * t.value_dim);
  const float* from = s0 ? s0 : s_end;
  for (int64_t i = 0; i < t.length; ++i, from = s_end) step(t, i, scratch, from, s_end, y + i * y_stride);
}

int64_t scratch_floats(const DplrTask& t) {
  return t.key_dim;
}

struct Backward {
  float *e, *z, *dz, *y;  // [K], [V], [V], [V]
  float* ds;              // [K, V]
  float* starts;          // [runs, K, V]: the state before each run of kReplay tokens
  float* states;          // [kReplay + 1, K, V]: those within the run
  SENNIT_INLINE Backward(const DplrTask& t, Scratch& pieces) {
    const int64_t size = t.key_dim * t.value_dim;
    e = pieces.take(t.key_dim);
    for (float** p : {&z, &dz, &y}) *p = pieces.take(t.value_dim);
    ds = pieces.take(size);
    starts = pieces.take((t.length + kReplay - 1) / kReplay * size);
    states = pieces.take((kReplay + 1) * size);
  }
};

// Token i: from the gradient of the state after it to that of the state before it, in w.ds.
void step_back(const DplrTask& t, int64_t i, const Backward& w, const float* before, const float* after,
               const float* dy, const Dplr::Gradients& into) {
  const int64_t V = t.value_dim, row = i * t.stride;
  const Token x(t, i, w.e);
  for_lanes(V, [&](int64_t l, int64_t lanes) {
    vf old[1];
    read_old(t, x, before, l, lanes, old);
    store_n(w.z + l, old[0], lanes);
  });
  copy(nullptr, w.dz, V);
  const float* z = w.z;
  float *dz = w.dz, *dv = into.v + i * t.v_stride;
  for (int64_t p = 0; p < t.key_dim; ++p) {
    float* ds = w.ds + p * V;
    const float* s = after + p * V;
    const vf query = set(t.scale * x.q[p]), key = set(x.k[p]), weight = set(x.b[p]);
    vf dq = zero(), dk = zero(), db = zero();
    for_lanes(V, [&](int64_t l, int64_t lanes) {
      const vf g = load_n(dy + l, lanes), d = fma(query, g, load_n(ds + l, lanes));
      store_n(ds + l, d, lanes);
      dq = fma(load_n(s + l, lanes), g, dq);
      dk = fma(load_n(x.v + l, lanes), d, dk);
      db = fma(load_n(z + l, lanes), d, db);
      store_n(dv + l, fma(key, d, load_n(dv + l, lanes)), lanes);
      store_n(dz + l, fma(weight, d, load_n(dz + l, lanes)), lanes);
    });
    into.q[row + p] += t.scale * sum(dq);
    into.k[row + p] += sum(dk);
    into.b[row + p] += sum(db);
  }
  for (int64_t p = 0; p < t.key_dim; ++p) {
    float* ds = w.ds + p * V;
    const float* s = before + p * V;
    const vf read = set(x.a[p]), decay = set(x.e[p]);
    vf da = zero(), dg = zero();
    for_lanes(V, [&](int64_t l, int64_t lanes) {
      const vf d = decay * load_n(ds + l, lanes), through = load_n(dz + l, lanes), old = load_n(s + l, lanes);
      da = fma(old, through, da);
      dg = fma(old, d, dg);
      store_n(ds + l, fma(read, through, d), lanes);
    });
    into.a[row + p] += sum(da);
    into.g[row + p] += sum(dg);
  }
}

void backward(const DplrTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
              const Dplr::Gradients& into, float* ds0, float* scratch) {
  const int64_t size = t.key_dim * t.value_dim;
  Scratch pieces(scratch);
  const Backward w(t, pieces);
  copy(ds_end, w.ds, size);
  copy(s0, w.states, size);
  for (int64_t i = 0; i < t.length; ++i) {
    if (i % kReplay == 0) copy(w.states, w.starts + i / kReplay * size, size);
    step(t, i, w.e, w.states, w.states, w.y);
  }
  for (int64_t run = (t.length + kReplay - 1) / kReplay - 1; run >= 0; --run) {
    const int64_t first = run * kReplay, n = t.length - first < kReplay ? t.length - first : kReplay;
    copy(w.starts + run * size, w.states, size);
    for (int64_t i = 0; i < n; ++i) step(t, first + i, w.e, w.states + i * size, w.states + (i + 1) * size, w.y);
    for (int64_t i = n - 1; i >= 0; --i)
      step_back(t, first + i, w, w.states + i * size, w.states + (i + 1) * size, dy + (first + i) * dy_stride, into);
  }
  if (ds0) for_lanes(size, [&](int64_t l, int64_t k) { add_n(ds0 + l, load_n(w.ds + l, k), k); });
}

int64_t backward_scratch_floats(const DplrTask& t) {
  Scratch pieces(nullptr);
  Backward(t, pieces);
  return pieces.needed();
}

}  // namespace

const Dplr dplr_table = {.scratch_floats = scratch_floats,
                         .backward_scratch_floats = backward_scratch_floats,
                         .forward = forward,
                         .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
