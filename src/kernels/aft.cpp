#include "kernels/aft.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// Where token t - j stands in k and v, from channel c.
SENNIT_INLINE int64_t place(const AftTask& a, int64_t t, int64_t j, int64_t c) {
  return (a.window + t - j) * a.stride + c;
}

void forward(const AftTask& a, float* y, float* lse) {
  for (int64_t t = 0; t < a.length; ++t)
    for_lanes(a.channels, [&](int64_t c, int64_t lanes) {
      const auto score = [&](int64_t j) { return load_n(a.k + place(a, t, j, c), lanes) + set(a.w[j]); };
      const int64_t at = t * a.stride + c;
      const vf far = load_n(a.far_logit + at, lanes);
      vf top = far;
      for (int64_t j = 0; j < a.window; ++j) top = max(top, score(j));
      vf total = exp(far - top), mean = total * load_n(a.far_value + at, lanes);
      for (int64_t j = 0; j < a.window; ++j) {
        const vf weight = exp(score(j) - top);
        total = total + weight;
        mean = fma(weight, load_n(a.v + place(a, t, j, c), lanes), mean);
      }
      store_n(y + at, mean / total, lanes);
      store_n(lse + at, top + log(total), lanes);
    });
}

void backward(const AftTask& a, const float* y, const float* lse, const float* dy, const Aft::Gradients& into) {
  for (int64_t t = 0; t < a.length; ++t)
    for_lanes(a.channels, [&](int64_t c, int64_t lanes) {
      const int64_t at = t * a.stride + c;
      const vf d = load_n(dy + at, lanes), out = load_n(y + at, lanes), total = load_n(lse + at, lanes);
      const vf far = exp(load_n(a.far_logit + at, lanes) - total) * d;
      add_n(into.far_value + at, far, lanes);
      add_n(into.far_logit + at, far * (load_n(a.far_value + at, lanes) - out), lanes);
      for (int64_t j = 0; j < a.window; ++j) {
        const int64_t near = place(a, t, j, c);
        const vf weight = exp(load_n(a.k + near, lanes) + set(a.w[j]) - total) * d;
        const vf ds = weight * (load_n(a.v + near, lanes) - out);
        add_n(into.v + near, weight, lanes);
        add_n(into.k + near, ds, lanes);
        into.w[j] += sum(keep_n(ds, lanes));
      }
    });
}

void pairs(const float* reader, const float* read, int64_t stride, int64_t rank, int64_t window, float* w) {
  for_lanes(window, [&](int64_t j, int64_t lanes) {
    vf sum = set(0);
    for (int64_t r = 0; r < rank; ++r) sum = fma(set(reader[r]), load_n(read + r * stride + j, lanes), sum);
    store_n(w + j, sum, lanes);
  });
}

}  // namespace

const Aft aft_table = {.forward = forward, .backward = backward, .pairs = pairs};

}  // namespace sennit::kernels::SENNIT_LEVEL
