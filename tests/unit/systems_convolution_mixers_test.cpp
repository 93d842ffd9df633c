// What the papers on long convolutions and fixed state spaces promise: LMU (P023), S4 (P034) and Hyena (P289).
#include <gtest/gtest.h>

#include <complex>

#include "mixers/hippo.h"
#include "mixers/legendre.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/long_conv.h"
#include "sequence/recurrences.h"
#include "support/mixers.h"
#include "support/timing.h"

namespace sennit::systems_convolution_mixers_test {

using Complex = std::complex<double>;

// b^* A^k b and b^* A^k p do not depend on the basis.
TEST(SystemsP034, TheStartIsHippo) {
  for (const int64_t modes : {1, 4, 16, 32}) {
    const int64_t n = 2 * modes;
    std::vector<double> a(n * n), b(n), at(n);
    for (int64_t i = 0; i < n; ++i) {
      b[i] = std::sqrt(static_cast<double>(2 * i + 1));
      for (int64_t j = 0; j <= i; ++j)
        a[i * n + j] =
            i == j ? -static_cast<double>(i + 1) : -std::sqrt(static_cast<double>((2 * i + 1) * (2 * j + 1)));
    }
    const mixers::Dplr d = mixers::hippo_legs(modes);
    std::vector<Complex> x = d.b;
    at = b;
    double size = 1;
    for (int power = 0; power < 4; ++power) {
      double want = 0;
      Complex got = 0;
      for (int64_t i = 0; i < n; ++i) want += b[i] * at[i];
      for (int64_t i = 0; i < modes; ++i) got += std::conj(d.b[i]) * x[i];
      EXPECT_NEAR(2 * got.real(), want, 1e-9 * std::fabs(want)) << modes << " modes, power " << power;
      std::vector<double> next(n);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) next[i] += a[i * n + j] * at[j];
      double met = 0;
      for (int64_t i = 0; i < modes; ++i) met += 2 * (std::conj(d.p[i]) * x[i]).real();
      for (int64_t i = 0; i < modes; ++i) x[i] = d.lambda[i] * x[i] - d.p[i] * met;
      at = next, size = std::fabs(want);
    }
    EXPECT_GT(size, 0);
  }
}

struct Five {
  std::vector<Segment> segments;
  Tensor x = normal_rows(1500, 32, 2);
  Five() {
    for (int64_t i = 0; i < 5; ++i) segments.push_back({300 * i, 300, 0, nullptr});
  }
};

TEST(SystemsP034, TheConvolutionIsTheRecurrence) {
  NoGrad off;
  auto mixer = make_mixer("s4", 32);
  const Five five;
  const Context context, exact{.exact = true};
  const Tensor conv = mixer->forward(Var(five.x), {five.segments, &context}).value();
  const Tensor steps = mixer->forward(Var(five.x), {five.segments, &exact}).value();
  EXPECT_LE(most_apart(conv, steps), 1e-4);
}

TEST(SystemsP034, TheConvolutionsGradientsAreTheRecurrences) {
  std::vector<Tensor> gradients[2];
  const Five five;
  for (const bool exact : {false, true}) {
    auto mixer = make_mixer("s4", 32);
    const Context context{.exact = exact};
    const Var x = Var::leaf(five.x.clone());
    backward(mixer->forward(x, {five.segments, &context}), normal_rows(1500, 32, 3));
    gradients[exact].push_back(x.grad());
    mixer->parameters([&](const std::string&, Parameter& p) { gradients[exact].push_back(p.var.grad()); });
  }
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_LE(most_apart(gradients[0][i], gradients[1][i]), 2e-4) << i;
}

TEST(SystemsP034, AStateOfConstantSize) {
  EXPECT_EQ(state_bytes("s4", 20), state_bytes("s4", 500));
}

TEST(SpeedP034, AConvolutionBeatsSumsOfPowersTenfold) {
  NoGrad off;
  constexpr int64_t kRows = 4096, kChannels = 64;
  const Context context, exact{.exact = true};
  const Var x(normal_rows(kRows, kChannels, 4)), h(normal_rows(kRows, kChannels, 5));
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  const double fast = seconds_of(5, [&] { long_conv(x, h, {whole, &context}, 0); });
  const double direct = seconds_of(3, [&] { long_conv(x, h, {whole, &exact}, 0); });
  EXPECT_GE(direct / fast, 10);
}

TEST(SystemsP023, TheRecurrenceIsTheConvolution) {
  NoGrad off;
  constexpr int64_t kOrder = 16, kRows = 400, kChannels = 3;
  const auto s = mixers::legendre_system(kOrder, 100);
  const Context context;
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  const Batch batch{whole, &context};
  const Tensor u = normal_rows(kRows, kChannels, 6);
  Tensor impulse = Tensor::zeros({kRows, kChannels});
  for (int64_t c = 0; c < kChannels; ++c) impulse.data()[c] = 1;
  const Var filter = lti_scan(Var(impulse), s.a, s.b, batch, 0);
  const Tensor steps = lti_scan(Var(u), s.a, s.b, batch, 0).value();
  const Tensor conv = long_conv(repeat_groups(Var(u), 1, kOrder), filter, batch, 0).value();
  EXPECT_LE(most_apart(conv, steps), 1e-4);
}

TEST(SystemsP023, TheMemoryHoldsADelayedSignal) {
  NoGrad off;
  constexpr int64_t kOrder = 16, kTheta = 200, kRows = 1200;
  const auto s = mixers::legendre_system(kOrder, kTheta);
  Tensor u({kRows, 1});
  for (int64_t t = 0; t < kRows; ++t) {  // two waves, the faster of three turns a window
    const double turn = 2 * M_PI * static_cast<double>(t) / kTheta;
    u.data()[t] = static_cast<float>(std::sin(turn) + 0.7 * std::cos(3 * turn + 1));
  }
  const Context context;
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  const Tensor m = lti_scan(Var(u), s.a, s.b, {whole, &context}, 0).value();
  for (const double delay : {0.1, 0.5, 0.9}) {
    double wrong = 0, size = 0;
    const auto back = static_cast<int64_t>(std::lround(delay * kTheta));
    for (int64_t t = 2 * kTheta; t < kRows; ++t) {
      double said = 0;
      for (int64_t i = 0; i < kOrder; ++i) said += mixers::legendre_weight(i, delay) * m.data()[t * kOrder + i];
      const double was = u.data()[t - back];
      wrong += (said - was) * (said - was), size += was * was;
    }
    EXPECT_LE(std::sqrt(wrong / size), 0.05) << delay;
  }
}

TEST(SystemsP023, AStateOfConstantSize) {
  EXPECT_EQ(state_bytes("lmu", 20), state_bytes("lmu", 500));
}

TEST(SystemsP289, AStateOfWhatFiltersReach) {
  const Json part{{"name", "hyena"}, {"length", 64}};
  EXPECT_EQ(state_bytes(part, 640), state_bytes(part, 1280));
}

}  // namespace sennit::systems_convolution_mixers_test
