#include <gtest/gtest.h>

#include <cmath>

#include "kernels/log_sum.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::log_sum_kernel_test {

using Doubles = std::vector<double>;

// u and the last sums; `state` empty: nothing summed yet.
Doubles naive(const Doubles& k, const Doubles& state, int64_t length, int64_t channels, Doubles* end) {
  Doubles u(k.size()), sums = state.empty() ? Doubles(channels, -INFINITY) : state;
  for (int64_t t = 0; t < length; ++t)
    for (int64_t c = 0; c < channels; ++c) {
      double& sum = sums[c];
      const double key = k[t * channels + c];
      u[t * channels + c] = std::fmin(key - sum, 100);
      sum = std::fmax(sum, key) + std::log1p(std::exp(-std::fabs(key - sum)));
    }
  *end = sums;
  return u;
}

TEST(LogSumKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const int64_t channels : {1, 7, 8, 16, 17, 33})
      for (const int64_t length : {0, 1, 2, 40})
        for (const double size : {1.0, 50.0, 1e4})
          for (const bool fresh : {true, false}) {
            const Fenced k = Fenced::normal(rng, length * channels, size), state = Fenced::normal(rng, channels, size);
            Fenced u(k.size(), NAN), end(channels, NAN);
            kernels::log_sum().forward({k.data(), channels, length, channels}, fresh ? nullptr : state.data(),
                                       end.data(), u.data(), channels);
            Doubles last;
            const Doubles want = naive(k.doubles(), fresh ? Doubles() : state.doubles(), length, channels, &last);
            ASSERT_TRUE(u.intact() && end.intact());
            for (int64_t i = 0; i < u.size(); ++i) ASSERT_NEAR(u[i], want[static_cast<size_t>(i)], 2e-6 * (1 + size));
            for (int64_t c = 0; c < channels; ++c) {
              if (fresh && length == 0) {
                ASSERT_EQ(end[c], -INFINITY);
              } else {
                ASSERT_NEAR(end[c], last[static_cast<size_t>(c)], 1e-6 * (1 + size));
              }
            }
          }
  });
}

TEST(LogSumKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (const int64_t channels : {1, 16, 19})
      for (const int64_t length : {1, 2, 30})
        for (const bool fresh : {true, false}) {
          const Fenced k = Fenced::normal(rng, length * channels, 2), state = Fenced::normal(rng, channels, 2);
          const Fenced du = Fenced::normal(rng, length * channels), d_end = Fenced::normal(rng, channels);
          Fenced u(k.size()), end(channels), dk(k.size()), d_state(channels);
          const kernels::LogSumTask task{k.data(), channels, length, channels};
          kernels::log_sum().forward(task, fresh ? nullptr : state.data(), end.data(), u.data(), channels);
          kernels::log_sum().backward(task, u.data(), channels, du.data(), channels, d_end.data(), dk.data(),
                                      fresh ? nullptr : d_state.data());
          const auto loss = [&](const Doubles& keys, const Doubles& first) {
            Doubles last;
            const Doubles y = naive(keys, first, length, channels, &last);
            double sum = 0;
            for (size_t i = 0; i < y.size(); ++i) sum += y[i] * du[static_cast<int64_t>(i)];
            for (size_t i = 0; i < last.size(); ++i) sum += last[i] * d_end[static_cast<int64_t>(i)];
            return sum;
          };
          const Doubles first = fresh ? Doubles() : state.doubles();
          expect_gradient(
              "dk", [&](const Doubles& x) { return loss(x, first); }, k.doubles(), dk, 1e-5, rng);
          if (!fresh)
            expect_gradient(
                "d_state", [&](const Doubles& x) { return loss(k.doubles(), x); }, state.doubles(), d_state, 1e-5, rng);
        }
  });
}

}  // namespace sennit::log_sum_kernel_test
