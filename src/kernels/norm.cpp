#include "kernels/norm.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The sum of term(i, lanes) over a row, in four interleaved partial sums.
template <class Term>
SENNIT_INLINE float row_sum(int64_t d, Term&& term) {
  vf s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= d; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) s[j] = s[j] + term(i + j * kLanes, int64_t{kLanes});
  for_lanes(d - i, [&](int64_t j, int64_t k) { s[0] = s[0] + term(i + j, k); });
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

SENNIT_INLINE float inverse_root(float a) {
  return 1.0f / __builtin_sqrtf(a);
}
SENNIT_INLINE vf weight(const float* w, int64_t i, int64_t k) {
  return w ? load_n(w + i, k) : set(1);
}

// y = w x / sqrt(sum(x^2) / count + eps)
SENNIT_INLINE void normalize(const float* x, const float* w, int64_t rows, int64_t d, float count, float eps, float* y,
                             float* inverse) {
  for (int64_t r = 0; r < rows; ++r, x += d, y += d) {
    const float squares = row_sum(d, [&](int64_t i, int64_t k) {
      const vf v = load_n(x + i, k);
      return v * v;
    });
    const float scale = inverse_root(squares / count + eps);
    if (inverse) inverse[r] = scale;
    for_lanes(d, [&](int64_t i, int64_t k) { store_n(y + i, load_n(x + i, k) * set(scale) * weight(w, i, k), k); });
  }
}

// With u = x inverse and g = w dy: dx += inverse (g - u sum(g u) / count), dw += dy u.
SENNIT_INLINE void normalize_gradient(const float* x, const float* w, const float* inverse, const float* dy,
                                      int64_t rows, int64_t d, float count, Sum dx, float* dw) {
  for (int64_t r = 0; r < rows; ++r, x += d, dy += d, dx = dx.from(d)) {
    const vf scale = set(inverse[r]);
    const float along = row_sum(
        d, [&](int64_t i, int64_t k) { return load_n(x + i, k) * scale * (weight(w, i, k) * load_n(dy + i, k)); });
    const vf mean = set(along / count);
    for_lanes(d, [&](int64_t i, int64_t k) {
      const vf u = load_n(x + i, k) * scale, g = load_n(dy + i, k);
      add_lanes(dx, i, scale * fnma(u, mean, weight(w, i, k) * g), k);
      if (dw) add_n(dw + i, g * u, k);
    });
  }
}

void rmsnorm(const float* x, const float* w, int64_t rows, int64_t d, float eps, float* y, float* inverse) {
  normalize(x, w, rows, d, static_cast<float>(d), eps, y, inverse);
}
void rmsnorm_gradient(const float* x, const float* w, const float* inverse, const float* dy, int64_t rows, int64_t d,
                      Sum dx, float* dw) {
  normalize_gradient(x, w, inverse, dy, rows, d, static_cast<float>(d), dx, dw);
}

void l2norm(const float* x, int64_t rows, int64_t d, float eps, float* y, float* inverse) {
  normalize(x, nullptr, rows, d, 1, eps, y, inverse);
}
void l2norm_gradient(const float* x, const float* inverse, const float* dy, int64_t rows, int64_t d, Sum dx) {
  normalize_gradient(x, nullptr, inverse, dy, rows, d, 1, dx, nullptr);
}

void layernorm(const float* x, const float* w, const float* b, int64_t rows, int64_t d, float eps, float* y,
               float* mean, float* inverse) {
  const float count = static_cast<float>(d);
  for (int64_t r = 0; r < rows; ++r, x += d, y += d) {
    const float center = row_sum(d, [&](int64_t i, int64_t k) { return load_n(x + i, k); }) / count;
    const float squares = row_sum(d, [&](int64_t i, int64_t k) {
      const vf v = keep_n(load_n(x + i, k) - set(center), k);
      return v * v;
    });
    const float scale = inverse_root(squares / count + eps);
    if (mean) mean[r] = center;
    if (inverse) inverse[r] = scale;
    for_lanes(d, [&](int64_t i, int64_t k) {
      const vf u = (load_n(x + i, k) - set(center)) * set(scale);
      store_n(y + i, fma(u, weight(w, i, k), b ? load_n(b + i, k) : zero()), k);
    });
  }
}

// With u = (x - mean) inverse and g = w dy: dx += inverse (g - mean(g) - u mean(g u)), dw += dy u, db += dy.
void layernorm_gradient(const float* x, const float* w, const float* mean, const float* inverse, const float* dy,
                        int64_t rows, int64_t d, Sum dx, float* dw, float* db) {
  const float count = static_cast<float>(d);
  for (int64_t r = 0; r < rows; ++r, x += d, dy += d, dx = dx.from(d)) {
    const vf scale = set(inverse[r]), center = set(mean[r]);
    const float total = row_sum(d, [&](int64_t i, int64_t k) { return weight(w, i, k) * load_n(dy + i, k); });
    const float along = row_sum(d, [&](int64_t i, int64_t k) {
      return (load_n(x + i, k) - center) * scale * (weight(w, i, k) * load_n(dy + i, k));
    });
    const vf mean_g = set(total / count), mean_gu = set(along / count);
    for_lanes(d, [&](int64_t i, int64_t k) {
      const vf u = (load_n(x + i, k) - center) * scale, g = load_n(dy + i, k);
      add_lanes(dx, i, scale * fnma(u, mean_gu, weight(w, i, k) * g - mean_g), k);
      if (dw) add_n(dw + i, g * u, k);
      if (db) add_n(db + i, g, k);
    });
  }
}

}  // namespace

const Norm norm_table = {
    .rmsnorm = rmsnorm,
    .rmsnorm_gradient = rmsnorm_gradient,
    .layernorm = layernorm,
    .layernorm_gradient = layernorm_gradient,
    .l2norm = l2norm,
    .l2norm_gradient = l2norm_gradient,
};

}  // namespace sennit::kernels::SENNIT_LEVEL
