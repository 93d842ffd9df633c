#include <gtest/gtest.h>

#include <cmath>

#include "kernels/optimizer.h"
#include "support/buffers.h"
#include "support/levels.h"

namespace sennit::optimizer_kernel_test {

TEST(OptimizerKernel, AdamWFollowsTheAlgorithmInDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (int64_t n : {0, 1, 7, 8, 15, 16, 17, 33, 100}) {
      Fenced p = Fenced::normal(rng, n), m(n), v(n);
      std::vector<double> p2 = p.doubles(), m2(p2.size()), v2(p2.size());
      for (int step = 1; step <= 20; ++step) {
        const Fenced g = Fenced::normal(rng, n);
        const double b1 = 0.9, b2 = 0.999, rate = 0.01, decay = 0.1, eps = 1e-8, scale = 0.5;
        kernels::optimizer().adamw({.rate = rate,
                                    .beta1 = b1,
                                    .beta2 = b2,
                                    .epsilon = eps,
                                    .weight_decay = decay,
                                    .correction1 = 1 - std::pow(b1, step),
                                    .correction2 = 1 - std::pow(b2, step),
                                    .gradient_scale = scale},
                                   g.data(), p.data(), m.data(), v.data(), n);
        for (int64_t i = 0; i < n; ++i) {
          const double gi = scale * g[i];
          m2[i] = b1 * m2[i] + (1 - b1) * gi;
          v2[i] = b2 * v2[i] + (1 - b2) * gi * gi;
          const double m_hat = m2[i] / (1 - std::pow(b1, step)), v_hat = v2[i] / (1 - std::pow(b2, step));
          p2[i] -= rate * (m_hat / (std::sqrt(v_hat) + eps) + decay * p2[i]);
        }
      }
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_NEAR(p[i], p2[i], 2e-6 * (1 + std::abs(p2[i])));
        EXPECT_NEAR(m[i], m2[i], 1e-6);
        EXPECT_NEAR(v[i], v2[i], 1e-6 * v2[i]);
      }
      EXPECT_TRUE(p.intact() && m.intact() && v.intact());
    }
  });
}

}  // namespace sennit::optimizer_kernel_test
