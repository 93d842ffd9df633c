#include "kernels/pair_filter.h"

#include "kernels/lag_row.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

int64_t half(const LagAttentionTask& t) {
  return t.key_dim / 2;
}

void clear(float* x, int64_t n) {
  for_lanes(n, [&](int64_t c, int64_t k) { store_n(x + c, zero(), k); });
}

// D of one pair of query and key.
float distance(const LagRow& row, int64_t j) {
  const int64_t h = half(row.t), at = row.place(j);
  const float *q = row.q(), *key = row.k(j), *b = row.t.b + at, *g = row.t.g + at;
  vf sum_of_lanes = zero();
  for_lanes(h, [&](int64_t c, int64_t k) {
    const vf gain = load_n(g + c, k), first = fnma(gain, load_n(key + c, k), load_n(q + c, k)),
             second = fnma(gain, load_n(key + h + c, k), load_n(q + h + c, k));
    sum_of_lanes = fma(load_n(b + c, k), fma(first, first, second * second), sum_of_lanes);
  });
  return sum(sum_of_lanes);
}

// w [keys] of one query. Exponentials are as shares of the largest: a factor of all cancels.
void weigh(const LagRow& row, float* w) {
  const LagAttentionTask& t = row.t;
  const int64_t end = row.end();
  float least = __builtin_inff();
  for (int64_t j = 0; j < end; ++j) {
    w[j] = t.scale * distance(row, j);
    least = w[j] < least ? w[j] : least;
  }
  for_lanes(end, [&](int64_t j, int64_t k) {
    const vf d = load_n(w + j, k);
    store_n(w + j, t.rule == LagRule::robust ? set(1) / (set(1) + d) : exp(set(least) - d), k);
  });
}

int64_t scratch_floats(const LagAttentionTask& t) {
  return t.keys + 2 * t.value_dim;
}

// What is said, and 1 / sum_j w_ij b_lc of each pair.
void say(const LagRow& row, const float* w, float* o, float* shares) {
  const int64_t h = half(row.t);
  clear(o, 2 * h), clear(shares, h);
  for (int64_t j = 0; j < row.end(); ++j) {
    const int64_t at = row.place(j);
    const float *b = row.t.b + at, *g = row.t.g + at, *v = row.v(j);
    for_lanes(h, [&](int64_t c, int64_t k) {
      const vf sure = set(w[j]) * load_n(b + c, k), weight = sure * load_n(g + c, k);
      store_n(shares + c, load_n(shares + c, k) + sure, k);
      store_n(o + c, fma(weight, load_n(v + c, k), load_n(o + c, k)), k);
      store_n(o + h + c, fma(weight, load_n(v + h + c, k), load_n(o + h + c, k)), k);
    });
  }
  if (row.end() == 0) return;
  for_lanes(h, [&](int64_t c, int64_t k) {
    const vf share = set(1) / load_n(shares + c, k);
    store_n(shares + c, share, k);
    store_n(o + c, share * load_n(o + c, k), k);
    store_n(o + h + c, share * load_n(o + h + c, k), k);
  });
}

void forward(const LagAttentionTask& t, float* o, int64_t o_stride, float* scratch) {
  for (int64_t i = 0; i < t.queries; ++i) {
    const LagRow row{t, i};
    weigh(row, scratch);
    say(row, scratch, o + i * o_stride, scratch + t.keys);
  }
}

// Gradients of one pair of query and key, from those of o, `d` [2 h], already times the shares.
void pair_back(const LagRow& row, int64_t j, float w, const float* o, const float* d,
               const LagAttention::Gradients& into) {
  const LagAttentionTask& t = row.t;
  const int64_t h = half(row.t), at = row.place(j);
  const float *q = row.q(), *key = row.k(j), *v = row.v(j), *b = t.b + at, *g = t.g + at;
  float *db = into.b + at, *dg = into.g + at, *dq = into.q + row.i * t.q_stride, *dk = into.k + j * t.k_stride,
        *dv = into.v + j * t.v_stride;
  vf to_weight = zero();
  for_lanes(h, [&](int64_t c, int64_t k) {
    const vf gain = load_n(g + c, k), sure = load_n(b + c, k), d1 = load_n(d + c, k), d2 = load_n(d + h + c, k),
             value = fma(d1, load_n(v + c, k), d2 * load_n(v + h + c, k)),
             said = fma(d1, load_n(o + c, k), d2 * load_n(o + h + c, k)), more = fma(gain, value, -said),
             weight = set(w) * sure;
    to_weight = fma(sure, more, to_weight);
    add_n(db + c, set(w) * more, k);
    add_n(dg + c, weight * value, k);
    add_n(dv + c, weight * gain * d1, k);
    add_n(dv + h + c, weight * gain * d2, k);
  });
  const float dw = sum(to_weight), slope = -dw * w * t.scale * (t.rule == LagRule::robust ? w : 1);
  for_lanes(h, [&](int64_t c, int64_t k) {
    const vf gain = load_n(g + c, k), k1 = load_n(key + c, k), k2 = load_n(key + h + c, k),
             r1 = fnma(gain, k1, load_n(q + c, k)), r2 = fnma(gain, k2, load_n(q + h + c, k)),
             twice = set(2 * slope) * load_n(b + c, k);
    add_n(db + c, set(slope) * fma(r1, r1, r2 * r2), k);
    add_n(dg + c, -(twice * fma(r1, k1, r2 * k2)), k);
    add_n(dq + c, twice * r1, k);
    add_n(dq + h + c, twice * r2, k);
    add_n(dk + c, -(twice * gain * r1), k);
    add_n(dk + h + c, -(twice * gain * r2), k);
  });
}

void backward(const LagAttentionTask& t, const float* d_o, int64_t o_stride, const LagAttention::Gradients& into,
              float* scratch) {
  const int64_t h = half(t);
  float *const o = scratch + t.keys, *const d = o + 2 * h;
  for (int64_t i = 0; i < t.queries; ++i) {
    const LagRow row{t, i};
    weigh(row, scratch);
    say(row, scratch, o, d);
    for_lanes(h, [&](int64_t c, int64_t k) {
      const vf share = load_n(d + c, k);
      store_n(d + c, share * load_n(d_o + i * o_stride + c, k), k);
      store_n(d + h + c, share * load_n(d_o + i * o_stride + h + c, k), k);
    });
    for (int64_t j = 0; j < row.end(); ++j) pair_back(row, j, scratch[j], o, d, into);
  }
}

}  // namespace

const LagAttention pair_filter_table = {.scratch_floats = scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
