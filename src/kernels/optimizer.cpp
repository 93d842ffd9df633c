#include "kernels/optimizer.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

SENNIT_INLINE vf rounded(double x) {
  return set(static_cast<float>(x));
}

void adamw(const AdamWStep& step, const float* gradient, float* p, float* m, float* v, int64_t n) {
  const vf beta1 = rounded(step.beta1), rest1 = rounded(1 - step.beta1);
  const vf beta2 = rounded(step.beta2), rest2 = rounded(1 - step.beta2);
  const vf inverse1 = rounded(1 / step.correction1), inverse2 = rounded(1 / step.correction2);
  const vf rate = rounded(step.rate), shrink = rounded(step.rate * step.weight_decay);
  const vf epsilon = rounded(step.epsilon), scale = rounded(step.gradient_scale);
  for_lanes(n, [&](int64_t i, int64_t k) {
    const vf g = load_n(gradient + i, k) * scale;
    const vf m_new = fma(beta1, load_n(m + i, k), rest1 * g), v_new = fma(beta2, load_n(v + i, k), rest2 * g * g);
    const vf update = m_new * inverse1 / (sqrt(v_new * inverse2) + epsilon), w = load_n(p + i, k);
    store_n(m + i, m_new, k);
    store_n(v + i, v_new, k);
    store_n(p + i, fnma(rate, update, fnma(shrink, w, w)), k);
  });
}

}  // namespace

const Optimizer optimizer_table = {.adamw = adamw};

}  // namespace sennit::kernels::SENNIT_LEVEL
