#include <gtest/gtest.h>

#include <cmath>

#include "kernels/loss.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::loss_kernel_test {

using Doubles = std::vector<double>;

double naive_log_sum_exp(const Doubles& x) {
  double top = x[0], total = 0;
  for (double v : x) top = std::max(top, v);
  for (double v : x) total += std::exp(v - top);
  return top + std::log(total);
}
Doubles naive_softmax(const Doubles& x) {
  Doubles y;
  const double z = naive_log_sum_exp(x);
  for (double v : x) y.push_back(std::exp(v - z));
  return y;
}

std::vector<int64_t> lengths() {
  std::vector<int64_t> n{4095, 4096, 4097, 50257};
  for (int64_t i = 1; i <= 40; ++i) n.push_back(i);
  return n;
}

TEST(LossKernel, CrossEntropyAndItsGradientAgreeWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (int64_t n : lengths())
      for (double scale : {1.0, 300.0}) {  // 300: exp of a logit alone would overflow
        Fenced x = Fenced::normal(rng, n, scale);
        if (n > 3) x[n / 2] = -INFINITY;
        const int64_t target = n > 3 && n / 2 == 0 ? 1 : 0;
        const Doubles v = x.doubles();
        const double z = naive_log_sum_exp(v), want = z - v[target];
        ASSERT_NEAR(kernels::loss().log_sum_exp(x.data(), n), z, 3e-7 * (std::abs(z) + 1)) << n;
        ASSERT_NEAR(kernels::loss().cross_entropy(x.data(), n, target), want, 1e-6 * (want + 1)) << n;
        const Doubles p = naive_softmax(v);
        ASSERT_NEAR(kernels::loss().cross_entropy_gradient(x.data(), n, target, 0.5f), want, 1e-6 * (want + 1)) << n;
        for (int64_t i = 0; i < n; ++i)
          ASSERT_NEAR(x[i], 0.5 * (p[i] - (i == target)), 1e-6 * p[i] + (i == target) * 1e-7 + 1e-37) << n << " " << i;
        ASSERT_TRUE(x.intact());
      }
  });
}

TEST(LossKernel, SoftmaxAndItsGradientAgreeWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (int64_t n : lengths()) {
      const Fenced x = Fenced::normal(rng, n, 3), dy = Fenced::normal(rng, n);
      Fenced y(n), dx(n, 1), written(n, NAN), here = x;
      kernels::loss().softmax(x.data(), n, y.data());
      kernels::loss().softmax(here.data(), n, here.data());
      const Doubles want = naive_softmax(x.doubles());
      // x - max(x) near 16 is rounded to 1e-6, and the scalar level adds 4096 terms in a row.
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], want[i], 4e-6 * want[i]) << n;
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(y[i], here[i]) << n;
      ASSERT_TRUE(y.intact());
      if (n > 64) continue;
      kernels::loss().softmax_gradient(y.data(), dy.data(), n, {dx.data()});
      kernels::loss().softmax_gradient(y.data(), dy.data(), n, {written.data(), false});
      for (int64_t i = 0; i < n; ++i) ASSERT_NEAR(written[i] + 1, dx[i], 2e-7) << n;
      auto f = [&](const Doubles& p) {
        double s = 0;
        const Doubles q = naive_softmax(p);
        for (int64_t i = 0; i < n; ++i) s += q[i] * dy[i];
        return s;
      };
      expect_gradient("dx", f, x.doubles(), dx, 2e-5, rng, 1);
    }
  });
}

TEST(LossKernel, SoftmaxOfAMaskedRowIsZeroAndMaskedEntriesAreExactlyZero) {
  for_each_level([](IsaLevel) {
    Fenced masked(19, -INFINITY), y(19, 7);
    kernels::loss().softmax(masked.data(), 19, y.data());
    for (float v : y) EXPECT_EQ(v, 0);
    masked[4] = -3;
    kernels::loss().softmax(masked.data(), 19, y.data());
    for (int64_t i = 0; i < 19; ++i) EXPECT_EQ(y[i], i == 4);
  });
}

TEST(LossKernel, ArgmaxFindsTheFirstOfTheHighest) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (int64_t n = 1; n < 70; ++n) {
      Fenced x = Fenced::normal(rng, n);
      const int64_t a = rng.below(n), b = rng.below(n);
      x[a] = x[b] = 9;
      EXPECT_EQ(kernels::loss().argmax(x.data(), n), std::min(a, b)) << n;
      const int64_t c = rng.below(n);
      if (c == a || c == b) continue;
      x[c] = NAN;
      EXPECT_EQ(kernels::loss().argmax(x.data(), n), std::min(a, b)) << n;
    }
    const Fenced nothing(5, NAN), masked(5, -INFINITY);
    EXPECT_EQ(kernels::loss().argmax(nothing.data(), 5), 0);
    EXPECT_EQ(kernels::loss().argmax(masked.data(), 5), 0);
  });
}

}  // namespace sennit::loss_kernel_test
