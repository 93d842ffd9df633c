#include "kernels/corrected_attention.h"

#include "kernels/attention_tile.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

struct Correction {
  const CorrectedTask& t;
  const CorrectedRow& row;

  const float* k(int64_t n) const { return t.k + row.keys[n] * t.k_stride; }
  const float* v(int64_t n) const { return t.v + row.keys[n] * t.v_stride; }
  const float* a(int64_t n) const { return t.a + row.keys[n] * t.a_stride; }
  float score(int64_t n) const { return t.scale * dot(row.q, k(n), t.key_dim); }
  // Of feature r of the n-th key listed, less `top`.
  vf estimate(int64_t n, int64_t r, int64_t lanes, float top) const {
    return keep_n(exp(load_n(row.b + r, lanes) + load_n(a(n) + r, lanes) - set(top)), lanes);
  }
  float estimated(int64_t n, float top) const {
    vf s = zero();
    for_lanes(t.features, [&](int64_t r, int64_t lanes) { s = s + estimate(n, r, lanes, top); });
    return sum(s);
  }
};

void forward(const CorrectedTask& t, const CorrectedRow& row, float* o, float* top, float* total, float* scratch) {
  const Correction c{t, row};
  float most = row.log_sum;
  for (int64_t n = 0; n < row.count; ++n) {
    scratch[n] = c.score(n);
    most = scratch[n] > most ? scratch[n] : most;
  }
  float sum = exp_of(row.log_sum - most);
  for_lanes(t.value_dim, [&](int64_t i, int64_t k) { store_n(o + i, set(sum) * load_n(row.mean + i, k), k); });
  for (int64_t n = 0; n < row.count; ++n) {
    const float weight = exp_of(scratch[n] - most) - c.estimated(n, most);
    sum += weight;
    add_scaled(weight, c.v(n), o, t.value_dim);
  }
  scale_row(o, 1 / sum, t.value_dim);
  *top = most;
  *total = sum;
}

void backward(const CorrectedTask& t, const CorrectedRow& row, const float* o, const float* d_o, float top, float total,
              const CorrectedAttention::Gradients& into) {
  const Correction c{t, row};
  const float along = dot(d_o, o, t.value_dim), all = exp_of(row.log_sum - top) / total;
  add_scaled(all, d_o, into.mean, t.value_dim);
  *into.log_sum += all * (dot(d_o, row.mean, t.value_dim) - along);
  for (int64_t n = 0; n < row.count; ++n) {
    const float exact = exp_of(c.score(n) - top), weight = exact - c.estimated(n, top);
    const float d_weight = (dot(d_o, c.v(n), t.value_dim) - along) / total, ds = t.scale * d_weight * exact;
    add_scaled(weight / total, d_o, into.v + row.keys[n] * t.v_stride, t.value_dim);
    add_scaled(ds, c.k(n), into.q, t.key_dim);
    add_scaled(ds, row.q, into.k + row.keys[n] * t.k_stride, t.key_dim);
    float *db = into.b, *da = into.a + row.keys[n] * t.a_stride;
    for_lanes(t.features, [&](int64_t r, int64_t lanes) {
      const vf d = set(d_weight) * c.estimate(n, r, lanes, top);
      add_n(db + r, -d, lanes);
      add_n(da + r, -d, lanes);
    });
  }
}

}  // namespace

const CorrectedAttention corrected_attention_table = {.forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
