#include "kernels/loss.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr float kInfinity = __builtin_inff();

float row_highest(const float* x, int64_t n) {
  float top = -kInfinity;
  vf m = set(top);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) m = max(load(x + i), m);
  top = highest(m);
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

// The sum of term(i, lanes): vectors within runs of 4096, the runs in double.
template <class Term>
SENNIT_INLINE double run_sum(int64_t n, Term&& term) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    vf s = zero();
    for_lanes(n - begin < 4096 ? n - begin : 4096, [&](int64_t i, int64_t k) { s = s + term(begin + i, k); });
    total += static_cast<double>(sum(s));
  }
  return total;
}

SENNIT_INLINE vf shifted_exp(const float* x, float top, int64_t k) {
  return keep_n(exp(load_n(x, k) - set(top)), k);
}

struct Normalizer {
  float top;
  double sum;  // of exp(x - top)
};

Normalizer normalizer(const float* x, int64_t n) {
  const float top = row_highest(x, n);
  return {top, run_sum(n, [&](int64_t i, int64_t k) { return shifted_exp(x + i, top, k); })};
}

// y = exp(x - top), and the sum of that.
Normalizer exponentials(const float* x, int64_t n, float* y) {
  const float highest_x = row_highest(x, n), top = highest_x == -kInfinity ? 0 : highest_x;
  return {top, run_sum(n, [&](int64_t i, int64_t k) {
            const vf e = shifted_exp(x + i, top, k);
            store_n(y + i, e, k);
            return e;
          })};
}

void scale_row(float* y, int64_t n, double scale) {
  const vf s = set(static_cast<float>(scale));
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, load_n(y + i, k) * s, k); });
}

float log_sum_exp(const float* x, int64_t n) {
  const Normalizer z = normalizer(x, n);
  return static_cast<float>(static_cast<double>(z.top) + __builtin_log(z.sum));
}

float cross_entropy(const float* x, int64_t n, int64_t target) {
  const Normalizer z = normalizer(x, n);
  return static_cast<float>((static_cast<double>(z.top) - static_cast<double>(x[target])) + __builtin_log(z.sum));
}

float cross_entropy_gradient(float* x, int64_t n, int64_t target, float scale) {
  const double at_target = static_cast<double>(x[target]);
  const Normalizer z = exponentials(x, n, x);
  scale_row(x, n, static_cast<double>(scale) / z.sum);
  x[target] -= scale;
  return static_cast<float>((static_cast<double>(z.top) - at_target) + __builtin_log(z.sum));
}

void softmax(const float* x, int64_t n, float* y) {
  const Normalizer z = exponentials(x, n, y);
  if (z.sum > 0) scale_row(y, n, 1 / z.sum);
}

void softmax_gradient(const float* y, const float* dy, int64_t n, Sum dx) {
  const double along = run_sum(n, [&](int64_t i, int64_t k) { return load_n(y + i, k) * load_n(dy + i, k); });
  const vf mean = set(static_cast<float>(along));
  for_lanes(n, [&](int64_t i, int64_t k) {
    add_lanes(dx, i, load_n(y + i, k) * (load_n(dy + i, k) - mean), k);
  });
}

int64_t argmax(const float* x, int64_t n) {
  constexpr int64_t kRun = 256;
  float top = -kInfinity;
  int64_t at = 0;  // the first run that holds the highest value
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const float highest_here = row_highest(x + begin, n - begin < kRun ? n - begin : kRun);
    if (highest_here > top) top = highest_here, at = begin;
  }
  for (int64_t i = at; i < n; ++i)
    if (x[i] == top) return i;
  return 0;
}

}  // namespace

const Loss loss_table = {
    .log_sum_exp = log_sum_exp,
    .cross_entropy = cross_entropy,
    .cross_entropy_gradient = cross_entropy_gradient,
    .softmax = softmax,
    .softmax_gradient = softmax_gradient,
    .argmax = argmax,
};

}  // namespace sennit::kernels::SENNIT_LEVEL
