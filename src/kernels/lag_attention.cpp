#include "kernels/lag_attention.h"

#include "kernels/small_products.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

float dot_of(const float* a, const float* b, int64_t n) {
  vf s = zero();
  for_lanes(n, [&](int64_t i, int64_t k) { s = fma(load_n(a + i, k), load_n(b + i, k), s); });
  return sum(s);
}
void add_scaled(float scale, const float* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, fma(set(scale), load_n(x + i, k), load_n(y + i, k)), k); });
}

// The keys of query i: [0, end), and where a distance stands in the tables.
struct Row {
  const LagAttentionTask& t;
  int64_t i;
  int64_t end() const {
    const int64_t last = i + t.offset + 1;
    return !t.causal || last > t.keys ? t.keys : last > 0 ? last : 0;
  }
  int64_t place(int64_t j) const {
    const int64_t l = j - i - t.offset;
    return (l < -t.reach ? 0 : l > t.reach ? 2 * t.reach : l + t.reach) * t.table_stride;
  }
  const float* q() const { return t.q + i * t.q_stride; }
};

// |q_i - gain k_j|^2
float apart(const Row& row, int64_t j, float gain) {
  const LagAttentionTask& t = row.t;
  vf s = zero();
  for_lanes(t.key_dim, [&](int64_t l, int64_t k) {
    const vf d = fnma(set(gain), load_n(t.k + j * t.k_stride + l, k), load_n(row.q() + l, k));
    s = fma(d, d, s);
  });
  return sum(s);
}

// w [keys] of one query, and their sum.
float weigh(const Row& row, float* w) {
  const LagAttentionTask& t = row.t;
  const int64_t end = row.end();
  float top = -__builtin_inff(), total = 0;
  for (int64_t j = 0; j < end; ++j) {
    const int64_t at = row.place(j);
    if (t.rule == LagRule::softmax) {
      w[j] = t.scale * dot_of(row.q(), t.k + j * t.k_stride, t.key_dim) + t.b[at];
      top = w[j] > top ? w[j] : top;
    } else {
      w[j] = 1 / (t.b[at] + t.scale * apart(row, j, t.g[at]));
    }
  }
  if (t.rule == LagRule::softmax)
    for_lanes(end, [&](int64_t j, int64_t k) { store_n(w + j, exp(load_n(w + j, k) - set(top)), k); });
  for (int64_t j = 0; j < end; ++j) total += w[j];
  return total;
}

int64_t scratch_floats(const LagAttentionTask& t) {
  return t.keys;
}

void forward(const LagAttentionTask& t, float* o, int64_t o_stride, float* scratch) {
  for (int64_t i = 0; i < t.queries; ++i) {
    const Row row{t, i};
    float* to = o + i * o_stride;
    for_lanes(t.value_dim, [&](int64_t l, int64_t k) { store_n(to + l, zero(), k); });
    const int64_t end = row.end();
    if (end == 0) continue;
    const float total = weigh(row, scratch);
    for (int64_t j = 0; j < end; ++j)
      add_scaled(scratch[j] / total * t.g[row.place(j)], t.v + j * t.v_stride, to, t.value_dim);
  }
}

// The gradients of one pair's weight, dw, to what it is made of.
SENNIT_INLINE void pair_back(const Row& row, int64_t j, float w, float dw, const LagAttention::Gradients& into) {
  const LagAttentionTask& t = row.t;
  const int64_t at = row.place(j);
  const float *q = row.q(), *k = t.k + j * t.k_stride;
  float *dq = into.q + row.i * t.q_stride, *dk = into.k + j * t.k_stride;
  if (t.rule == LagRule::softmax) {
    const float ds = dw * w;
    into.b[at] += ds;
    add_scaled(t.scale * ds, k, dq, t.key_dim);
    add_scaled(t.scale * ds, q, dk, t.key_dim);
    return;
  }
  const float gain = t.g[at], d = -dw * w * w;
  into.b[at] += d;
  const vf slope = set(2 * t.scale * d), g = set(gain);
  vf along = zero();
  for_lanes(t.key_dim, [&](int64_t l, int64_t lanes) {
    const vf key = load_n(k + l, lanes), s = slope * fnma(g, key, load_n(q + l, lanes));
    add_n(dq + l, s, lanes);
    add_n(dk + l, -(g * s), lanes);
    along = fma(s, key, along);
  });
  into.g[at] -= sum(along);
}

void backward(const LagAttentionTask& t, const float* d_o, int64_t o_stride, const LagAttention::Gradients& into,
              float* scratch) {
  for (int64_t i = 0; i < t.queries; ++i) {
    const Row row{t, i};
    const int64_t end = row.end();
    if (end == 0) continue;
    const float* g = d_o + i * o_stride;
    const float total = weigh(row, scratch);
    float said = 0;  // d_o . o
    for (int64_t j = 0; j < end; ++j)
      said += scratch[j] / total * t.g[row.place(j)] * dot_of(g, t.v + j * t.v_stride, t.value_dim);
    for (int64_t j = 0; j < end; ++j) {
      const float share = scratch[j] / total, gain = t.g[row.place(j)],
                  value = dot_of(g, t.v + j * t.v_stride, t.value_dim);
      add_scaled(share * gain, g, into.v + j * t.v_stride, t.value_dim);
      into.g[row.place(j)] += share * value;
      const bool normalised = t.rule == LagRule::softmax;
      pair_back(row, j, normalised ? share : scratch[j],
                normalised ? gain * value - said : (gain * value - said) / total, into);
    }
  }
}

}  // namespace

const LagAttention lag_attention_table = {.scratch_floats = scratch_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
