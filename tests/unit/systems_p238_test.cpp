// Long expressive memory (Rusch et al., arXiv:2110.04744) trained: the adding problem over 500 steps, and a stiff pair
// of differential equations.
#include <gtest/gtest.h>

#include "support/regression.h"

namespace sennit::systems_p238_test {

using regression::Follower, regression::Series;

// Two of the numbers are marked, one in each half: what is their sum? Saying 1 always misses it by 0.167.
Series adding(int64_t count, Rng rng) {
  constexpr int64_t kLength = 500;
  Series s = regression::series(count, kLength, 2, 1, false);
  for (int64_t i = 0; i < count; ++i) {
    float* rows = s.inputs.data() + i * kLength * 2;
    for (int64_t t = 0; t < kLength; ++t) rows[2 * t] = static_cast<float>(rng.uniform());
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t t = half * kLength / 2 + rng.below(kLength / 2);
      rows[2 * t + 1] = 1;
      s.answers.data()[i] += rows[2 * t];
    }
  }
  return s;
}
TEST(SystemsP238, TrainedToAddTwoNumbersOfFiveHundred) {
  const auto error_of = [](const Json& mixer) {
    Follower model({.mixer = mixer, .inputs = 2, .width = 32, .steps = 1500, .rate = 1e-2});
    model.train([](Rng rng) { return adding(8, rng); });
    return model.error(adding(200, Rng(99)));
  };
  const double lem = error_of({{"name", "lem"}, {"heads", 1}}),
               lstm = error_of({{"name", "rnn"}, {"cell", "lstm"}, {"heads", 1}});
  std::printf("adding problem, mean square error: LEM %.4f, LSTM %.4f\n", lem, lstm);
  EXPECT_LE(lem, 0.02);
}

// FitzHugh-Nagumo, the paper's equation 15: v' = v - v^3 / 3 - w + I, w' = 0.02 (v + 0.7 - 0.8 w) up to time 400, with
// v(0) = c0 drawn from [-1, 1], w(0) = 0. Shown v at 1000 points, what is v at the next?
Series spikes(int64_t count, Rng rng) {
  constexpr int64_t kLength = 1000, kSubsteps = 8;
  constexpr double kStep = 400.0 / kLength / kSubsteps;
  Series s = regression::series(count, kLength, 1, 1, true);
  for (int64_t i = 0; i < count; ++i) {
    double v = 2 * rng.uniform() - 1, w = 0;
    for (int64_t t = 0; t < kLength; ++t) {
      s.inputs.data()[i * kLength + t] = static_cast<float>(v);
      const auto dv = [&](double a, double b) { return a - a * a * a / 3 - b + 0.5; };
      const auto dw = [&](double a, double b) { return 0.02 * (a + 0.7 - 0.8 * b); };
      for (int64_t k = 0; k < kSubsteps; ++k) {  // Heun's rule
        const double a = dv(v, w), b = dw(v, w);
        const double v1 = v + kStep * a, w1 = w + kStep * b;
        v += kStep / 2 * (a + dv(v1, w1)), w += kStep / 2 * (b + dw(v1, w1));
      }
      s.answers.data()[i * kLength + t] = static_cast<float>(v);
    }
  }
  return s;
}
TEST(SystemsP238, TrainedOnSpikesItIsNoWorseThanAnLstm) {
  const auto error_of = [](const Json& mixer) {
    Follower model({.mixer = mixer, .width = 16, .steps = 300, .rate = 1e-2});
    model.train([](Rng rng) { return spikes(4, rng); });
    const Series test = spikes(32, Rng(98));
    double size = 0;
    for (const float a : test.answers.span()) size += double{a} * a / static_cast<double>(test.answers.elements());
    return std::sqrt(model.error(test) / size);
  };
  const double lem = error_of({{"name", "lem"}, {"heads", 1}}),
               lstm = error_of({{"name", "rnn"}, {"cell", "lstm"}, {"heads", 1}});
  std::printf("FitzHugh-Nagumo, relative L2 error: LEM %.5f, LSTM %.5f\n", lem, lstm);
  EXPECT_LE(lem, lstm);
}

}  // namespace sennit::systems_p238_test
