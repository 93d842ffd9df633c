#include <gtest/gtest.h>

#include <cmath>

#include "kernels/norm.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::norm_kernel_test {

using Doubles = std::vector<double>;
constexpr double kEps = 1e-5;
enum class Kind { rms, layer, l2 };

Doubles naive(Kind kind, const Doubles& x, const Doubles& w, const Doubles& b, int64_t rows, int64_t d) {
  Doubles y(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < d && kind == Kind::layer; ++i) mean += x[r * d + i] / static_cast<double>(d);
    for (int64_t i = 0; i < d; ++i) squares += (x[r * d + i] - mean) * (x[r * d + i] - mean);
    if (kind != Kind::l2) squares /= static_cast<double>(d);
    for (int64_t i = 0; i < d; ++i) {
      y[r * d + i] = (x[r * d + i] - mean) / std::sqrt(squares + kEps);
      if (kind != Kind::l2) y[r * d + i] *= w[i];
      if (kind == Kind::layer) y[r * d + i] += b[i];
    }
  }
  return y;
}

double weighted(const Doubles& y, const Doubles& dy) {
  double s = 0;
  for (size_t i = 0; i < y.size(); ++i) s += y[i] * dy[i];
  return s;
}

struct Result {
  Fenced y, mean, inverse, dx, dw, db;
};

// dx is added to ones, or written.
Result run(Kind kind, const Fenced& x, const Fenced& w, const Fenced& b, const Fenced& dy, int64_t rows, int64_t d,
           bool added = true) {
  const kernels::Norm& k = kernels::norm();
  Result o{Fenced(rows * d), Fenced(rows), Fenced(rows), Fenced(rows * d, added ? 1 : NAN), Fenced(d, 1), Fenced(d, 1)};
  const kernels::Sum dx{o.dx.data(), added};
  const float eps = static_cast<float>(kEps);
  if (kind == Kind::rms) {
    k.rmsnorm(x.data(), w.data(), rows, d, eps, o.y.data(), o.inverse.data());
    k.rmsnorm_gradient(x.data(), w.data(), o.inverse.data(), dy.data(), rows, d, dx, o.dw.data());
  } else if (kind == Kind::layer) {
    k.layernorm(x.data(), w.data(), b.data(), rows, d, eps, o.y.data(), o.mean.data(), o.inverse.data());
    k.layernorm_gradient(x.data(), w.data(), o.mean.data(), o.inverse.data(), dy.data(), rows, d, dx, o.dw.data(),
                         o.db.data());
  } else {
    k.l2norm(x.data(), rows, d, eps, o.y.data(), o.inverse.data());
    k.l2norm_gradient(x.data(), o.inverse.data(), dy.data(), rows, d, dx);
  }
  return o;
}

class NormKernel : public testing::TestWithParam<Kind> {};

TEST_P(NormKernel, EveryLengthAgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (int64_t d = 1; d <= 150; d += d < 70 ? 1 : 13) {
      const int64_t rows = 3;
      // A mean far from 0: a layer norm that subtracts squares would lose the variance.
      Fenced x = Fenced::normal(rng, rows * d), w = Fenced::normal(rng, d), b = Fenced::normal(rng, d);
      if (GetParam() == Kind::layer)
        for (float& v : x) v += 100;
      const Fenced dy = Fenced::normal(rng, rows * d);
      const Result o = run(GetParam(), x, w, b, dy, rows, d);
      const Doubles want = naive(GetParam(), x.doubles(), w.doubles(), b.doubles(), rows, d);
      const double slack = GetParam() == Kind::layer ? 2e-4 : 1e-6;
      for (int64_t i = 0; i < rows * d; ++i) ASSERT_NEAR(o.y[i], want[i], slack * (1 + std::abs(want[i]))) << d;
      ASSERT_TRUE(o.y.intact() && o.mean.intact() && o.inverse.intact());
    }
  });
}

TEST_P(NormKernel, GradientsAddWhatCentralDifferencesGive) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (int64_t d : {3, 7, 16, 33, 64, 70}) {
      const int64_t rows = 4;
      const Fenced x = Fenced::normal(rng, rows * d), w = Fenced::normal(rng, d), b = Fenced::normal(rng, d);
      const Fenced dy = Fenced::normal(rng, rows * d);
      const Result o = run(GetParam(), x, w, b, dy, rows, d);
      const Doubles g = dy.doubles(), vx = x.doubles(), vw = w.doubles(), vb = b.doubles();
      auto loss = [&](const Doubles& p, const Doubles& q, const Doubles& r) {
        return weighted(naive(GetParam(), p, q, r, rows, d), g);
      };
      expect_gradient(
          "dx", [&](const Doubles& p) { return loss(p, vw, vb); }, vx, o.dx, 2e-5, rng, 1);
      const Result written = run(GetParam(), x, w, b, dy, rows, d, false);
      for (int64_t i = 0; i < rows * d; ++i) ASSERT_NEAR(written.dx[i] + 1, o.dx[i], 1e-6 * (1 + std::abs(o.dx[i])));
      if (GetParam() == Kind::l2) continue;
      expect_gradient(
          "dw", [&](const Doubles& p) { return loss(vx, p, vb); }, vw, o.dw, 2e-5, rng, 1);
      if (GetParam() == Kind::layer)
        expect_gradient(
            "db", [&](const Doubles& p) { return loss(vx, vw, p); }, vb, o.db, 2e-5, rng, 1);
    }
  });
}

TEST_P(NormKernel, RowsStandAloneAndMayBeReplaced) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    const int64_t rows = 5, d = 77;
    const Fenced x = Fenced::normal(rng, rows * d), w = Fenced::normal(rng, d), b = Fenced::normal(rng, d);
    const Result all = run(GetParam(), x, w, b, x, rows, d);
    for (int64_t r = 0; r < rows; ++r) {
      Fenced row(d);
      std::copy_n(x.data() + r * d, d, row.data());
      const Result one = run(GetParam(), row, w, b, row, 1, d);
      for (int64_t i = 0; i < d; ++i) ASSERT_EQ(one.y[i], all.y[r * d + i]);
    }
    Fenced here = x;
    if (GetParam() == Kind::rms) kernels::norm().rmsnorm(here.data(), w.data(), rows, d, 1e-5f, here.data(), nullptr);
    if (GetParam() == Kind::layer)
      kernels::norm().layernorm(here.data(), w.data(), b.data(), rows, d, 1e-5f, here.data(), nullptr, nullptr);
    if (GetParam() == Kind::l2) kernels::norm().l2norm(here.data(), rows, d, 1e-5f, here.data(), nullptr);
    for (int64_t i = 0; i < rows * d; ++i) ASSERT_EQ(here[i], all.y[i]);
  });
}

TEST(NormKernelDefaults, AbsentWeightsAreOnesAndAbsentBiasesZeros) {
  for_each_level([](IsaLevel) {
    Rng rng(4);
    const int64_t d = 21;
    const Fenced x = Fenced::normal(rng, d), ones(d, 1), zeros(d, 0);
    Fenced a(d), b(d);
    kernels::norm().rmsnorm(x.data(), nullptr, 1, d, 1e-5f, a.data(), nullptr);
    kernels::norm().rmsnorm(x.data(), ones.data(), 1, d, 1e-5f, b.data(), nullptr);
    for (int64_t i = 0; i < d; ++i) ASSERT_EQ(a[i], b[i]);
    kernels::norm().layernorm(x.data(), nullptr, nullptr, 1, d, 1e-5f, a.data(), nullptr, nullptr);
    kernels::norm().layernorm(x.data(), ones.data(), zeros.data(), 1, d, 1e-5f, b.data(), nullptr, nullptr);
    for (int64_t i = 0; i < d; ++i) ASSERT_EQ(a[i], b[i]);
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, NormKernel, testing::Values(Kind::rms, Kind::layer, Kind::l2));

}  // namespace sennit::norm_kernel_test
