#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "base/rng.h"
#include "support/buffers.h"
#include "support/levels.h"

namespace sennit::elementwise_test {

using Function = std::function<double(double)>;
struct Case {
  const char* name;
  kernels::Elementwise::Map kernels::Elementwise::*map;
  kernels::Elementwise::Gradient kernels::Elementwise::*gradient;
  Function f;
  double low, high;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double gelu(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608 * (x + 0.044715 * x * x * x))); }

const Case kCases[] = {
    {"exp", &kernels::Elementwise::exp, nullptr, [](double x) { return std::exp(x); }, -80, 80},
    {"log", &kernels::Elementwise::log, nullptr, [](double x) { return std::log(x); }, 1e-30, 1e4},
    {"sigmoid", &kernels::Elementwise::sigmoid, &kernels::Elementwise::sigmoid_gradient, sigmoid, -30, 30},
    {"silu", &kernels::Elementwise::silu, &kernels::Elementwise::silu_gradient, [](double x) { return x * sigmoid(x); }, -20, 20},
    {"gelu", &kernels::Elementwise::gelu, &kernels::Elementwise::gelu_gradient, gelu, -5, 5},
    {"complement", &kernels::Elementwise::complement, &kernels::Elementwise::complement_gradient,
     [](double x) { return std::sqrt(-std::expm1(2 * x)); }, -20, -3e-3},
    {"relu", &kernels::Elementwise::relu, &kernels::Elementwise::relu_gradient, [](double x) { return std::max(x, 0.0); }, -5, 5},
    {"relu2", &kernels::Elementwise::relu2, &kernels::Elementwise::relu2_gradient,
     [](double x) { return x > 0 ? x * x : 0; }, -5, 5},
    {"sine", &kernels::Elementwise::sine, &kernels::Elementwise::sine_gradient, [](double x) { return std::sin(x); }, -40, 40},
    {"tanh", &kernels::Elementwise::tanh, &kernels::Elementwise::tanh_gradient, [](double x) { return std::tanh(x); }, -6, 6},
    {"softplus", &kernels::Elementwise::softplus, &kernels::Elementwise::softplus_gradient,
     [](double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }, -30, 30},
    {"gelu_erf", &kernels::Elementwise::gelu_erf, &kernels::Elementwise::gelu_erf_gradient,
     [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2)); }, -8, 8},
};

TEST(Elementwise, EveryLevelLengthAndMisalignmentAgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Case& c : kCases)
      for (int64_t n = 0; n <= 40; ++n)
        for (int shift = 0; shift < 3; ++shift) {
          std::vector<float> x(n + shift + 1), y(n + shift + 1, -7), dy(n + shift + 1), dx(n + shift + 1, 1);
          for (auto& v : x) v = static_cast<float>(c.low + (c.high - c.low) * rng.uniform());
          for (auto& v : dy) v = static_cast<float>(rng.normal());
          (kernels::elementwise().*c.map)(x.data() + shift, y.data() + shift, n);
          for (int64_t i = shift; i < n + shift; ++i) {
            const double want = c.f(x[i]);
            ASSERT_NEAR(y[i], want, 4e-6 * std::abs(want) + 1e-7) << c.name << " at " << x[i] << " n " << n;
          }
          ASSERT_EQ(y[n + shift], -7) << c.name << " wrote past the end";
          if (!c.gradient) continue;
          const auto gradient = kernels::elementwise().*c.gradient;
          std::vector<float> written(n + shift + 1, NAN);
          gradient(x.data() + shift, dy.data() + shift, {dx.data() + shift}, n);
          gradient(x.data() + shift, dy.data() + shift, {written.data() + shift, false}, n);
          for (int64_t i = shift; i < n + shift; ++i) {
            const double h = 1e-4, slope = (c.f(x[i] + h) - c.f(x[i] - h)) / (2 * h);
            if (std::abs(x[i]) < 2 * h) continue;  // the kink of relu
            ASSERT_NEAR(dx[i], 1 + dy[i] * slope, 2e-5 * (1 + std::abs(dy[i] * slope))) << c.name << " at " << x[i];
            ASSERT_NEAR(written[i] + 1, dx[i], 1e-6 * (1 + std::abs(dx[i]))) << c.name;
          }
          ASSERT_TRUE(dx[n + shift] == 1 && std::isnan(written[n + shift])) << c.name << " wrote past the end";
        }
  });
}

TEST(Elementwise, SwigluIsAProductAndItsGradientsAreAddedOrWritten) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    const kernels::Elementwise& k = kernels::elementwise();
    for (int64_t n = 0; n <= 40; ++n) {
      const Fenced g = Fenced::normal(rng, n, 3), u = Fenced::normal(rng, n), dy = Fenced::normal(rng, n);
      Fenced y(n), dg(n, 1), du(n, NAN);
      k.swiglu(g.data(), u.data(), y.data(), n);
      k.swiglu_gradient(g.data(), u.data(), dy.data(), {dg.data(), true}, {du.data(), false}, n);
      for (int64_t i = 0; i < n; ++i) {
        const double s = sigmoid(g[i]), slope = s * (1 + g[i] * (1 - s));
        ASSERT_NEAR(y[i], g[i] * s * u[i], 1e-5 * std::abs(g[i] * u[i]) + 1e-7);
        ASSERT_NEAR(dg[i], 1 + dy[i] * u[i] * slope, 1e-5 * (1 + std::abs(dy[i] * u[i])));
        ASSERT_NEAR(du[i], dy[i] * g[i] * s, 1e-5 * std::abs(dy[i] * g[i]) + 1e-7);
      }
      ASSERT_TRUE(y.intact() && dg.intact() && du.intact());
    }
  });
}

TEST(Elementwise, ExpSaturates) {
  for_each_level([](IsaLevel) {
    const float x[4] = {-200, 200, -INFINITY, NAN};
    float y[4];
    kernels::elementwise().exp(x, y, 4);
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], INFINITY);
    EXPECT_EQ(y[2], 0);
    EXPECT_TRUE(std::isnan(y[3]));
  });
}

TEST(Elementwise, Bf16RoundsToNearestEven) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    std::vector<float> x(100);
    for (auto& v : x) v = static_cast<float>(rng.normal() * std::exp(10 * rng.normal()));
    x[3] = NAN, x[5] = INFINITY, x[7] = -0.0f;
    std::vector<uint16_t> y(100);
    kernels::elementwise().to_bf16(x.data(), y.data(), 99);
    for (int i = 0; i < 99; ++i) {
      const float back = std::bit_cast<float>(uint32_t{y[i]} << 16);
      if (std::isnan(x[i])) EXPECT_TRUE(std::isnan(back));
      else if (std::isinf(x[i])) EXPECT_EQ(back, x[i]);
      else EXPECT_LE(std::abs(back - x[i]), std::abs(x[i]) * 0x1p-8f);
    }
  });
}

}  // namespace sennit::elementwise_test
