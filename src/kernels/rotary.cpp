#include "kernels/rotary.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

template <class Turn>
SENNIT_INLINE void for_each_head(const RotaryTask& t, Turn&& turn) {
  for (int64_t r = 0; r < t.rows; ++r)
    for (int64_t h = 0; h < t.heads; ++h)
      turn(t.x + r * t.row_stride + h * t.head_dim, t.cos + r * t.pairs, t.sin + r * t.pairs);
}

void halves(const RotaryTask& t) {
  const vf sign = set(t.inverse ? -1 : 1);
  for_each_head(t, [&](float* x, const float* cosine, const float* sine) {
    float* x2 = x + t.pairs;
    for_lanes(t.pairs, [&](int64_t i, int64_t k) {
      const vf a = load_n(x + i, k), b = load_n(x2 + i, k);
      const vf c = load_n(cosine + i, k), s = load_n(sine + i, k) * sign;
      store_n(x + i, fnma(b, s, a * c), k);
      store_n(x2 + i, fma(a, s, b * c), k);
    });
  });
}

// Left to the compiler, which knows the level's shuffles.
void interleaved(const RotaryTask& t) {
  const float sign = t.inverse ? -1 : 1;
  for_each_head(t, [&](float* __restrict x, const float* __restrict cosine, const float* __restrict sine) {
    for (int64_t i = 0; i < t.pairs; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1], c = cosine[i], s = sine[i] * sign;
      x[2 * i] = a * c - b * s;
      x[2 * i + 1] = a * s + b * c;
    }
  });
}

}  // namespace

const Rotary rotary_table = {.halves = halves, .interleaved = interleaved};

}  // namespace sennit::kernels::SENNIT_LEVEL
