#include <gtest/gtest.h>

#include <cmath>

#include "kernels/aft.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::aft_kernel_test {

using Doubles = std::vector<double>;

struct Inputs {
  Doubles k, v, far_logit, far_value, w;
};

Doubles naive(const Inputs& in, int64_t length, int64_t channels, int64_t window) {
  Doubles y(length * channels);
  for (int64_t t = 0; t < length; ++t)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t at = t * channels + c;
      double total = std::exp(in.far_logit[at]), sum = total * in.far_value[at];
      for (int64_t j = 0; j < window; ++j) {
        const int64_t near = (window + t - j) * channels + c;
        total += std::exp(in.k[near] + in.w[j]);
        sum += std::exp(in.k[near] + in.w[j]) * in.v[near];
      }
      y[at] = sum / total;
    }
  return y;
}

struct Sample {
  int64_t length, channels, window;
  Fenced k, v, far_logit, far_value, w;
  Sample(Rng& rng, int64_t n, int64_t c, int64_t near)
      : length(n),
        channels(c),
        window(near),
        k(Fenced::normal(rng, (n + near) * c, 2)),
        v(Fenced::normal(rng, (n + near) * c)),
        far_logit(Fenced::normal(rng, n * c, 2)),
        far_value(Fenced::normal(rng, n * c)),
        w(Fenced::normal(rng, near)) {}
  kernels::AftTask task() const {
    return {k.data(), v.data(), far_logit.data(), far_value.data(), w.data(), channels, length, channels, window};
  }
  Inputs doubles() const { return {k.doubles(), v.doubles(), far_logit.doubles(), far_value.doubles(), w.doubles()}; }
};

TEST(AftKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const int64_t channels : {1, 7, 8, 16, 17, 40})
      for (const int64_t length : {0, 1, 9})
        for (const int64_t window : {1, 2, 12}) {
          const Sample s(rng, length, channels, window);
          Fenced y(length * channels, NAN), lse(length * channels, NAN);
          kernels::aft().forward(s.task(), y.data(), lse.data());
          const Doubles want = naive(s.doubles(), length, channels, window);
          ASSERT_TRUE(y.intact() && lse.intact());
          for (int64_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], want[static_cast<size_t>(i)], 3e-6);
        }
  });
}

TEST(AftKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (const int64_t channels : {1, 16, 19})
      for (const int64_t window : {1, 6}) {
        const Sample s(rng, 9, channels, window);
        const Fenced dy = Fenced::normal(rng, 9 * channels);
        Fenced y(dy.size()), lse(dy.size());
        kernels::aft().forward(s.task(), y.data(), lse.data());
        Fenced dk(s.k.size()), dv(s.v.size()), dl(dy.size()), dm(dy.size()), dw(window);
        kernels::aft().backward(s.task(), y.data(), lse.data(), dy.data(),
                                {dk.data(), dv.data(), dl.data(), dm.data(), dw.data()});
        const auto check = [&](const char* name, Doubles Inputs::*which, const Fenced& gradient) {
          const auto loss = [&](const Doubles& x) {
            Inputs in = s.doubles();
            in.*which = x;
            const Doubles out = naive(in, 9, channels, window);
            double sum = 0;
            for (int64_t i = 0; i < dy.size(); ++i) sum += out[static_cast<size_t>(i)] * dy[i];
            return sum;
          };
          expect_gradient(name, loss, s.doubles().*which, gradient, 1e-5, rng);
        };
        check("k", &Inputs::k, dk), check("v", &Inputs::v, dv), check("w", &Inputs::w, dw);
        check("far_logit", &Inputs::far_logit, dl), check("far_value", &Inputs::far_value, dm);
      }
  });
}

TEST(AftKernel, WeightsOfPairsAgreeWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const int64_t rank : {1, 5, 16})
      for (const int64_t window : {1, 8, 21}) {
        const int64_t stride = window + 3;
        const Fenced reader = Fenced::normal(rng, rank), read = Fenced::normal(rng, (rank - 1) * stride + window);
        Fenced w(window, NAN);
        kernels::aft().pairs(reader.data(), read.data(), stride, rank, window, w.data());
        ASSERT_TRUE(w.intact());
        for (int64_t j = 0; j < window; ++j) {
          double want = 0;
          for (int64_t r = 0; r < rank; ++r) want += double{reader[r]} * read[r * stride + j];
          ASSERT_NEAR(w[j], want, 3e-6);
        }
      }
  });
}

}  // namespace sennit::aft_kernel_test
