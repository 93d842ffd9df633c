// Attention as a recurrent network (Aaren, Feng et al., arXiv:2405.13956): prefixes by recurrence, how states combine,
// what a stream costs, and forecasts.
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "sequence/recurrences.h"
#include "sequence/running.h"
#include "support/mixer_timing.h"
#include "support/regression.h"
#include "tensor/allocator.h"

namespace sennit::systems_p054_test {

const Json kAaren{{"name", "latte"}, {"latents", 1}};

// Outputs and gradients against the softmax of every prefix in double, at ordinary scores and up to +-1e4; and token by
// token.
TEST(SystemsP054, PrefixesByRecurrenceAreTheSoftmaxOfEach) {
  constexpr int64_t kRows = 200;
  for (const float size : {1.0f, 1e4f / 3}) {
    Tensor k = normal_rows(kRows, 1, 1);
    for (float& x : k.span()) x *= size;
    const Var score = Var::leaf(k), value = Var::leaf(normal_rows(kRows, 1, 2));
    const Tensor d = normal_rows(kRows, 1, 3);
    const Context context;
    const auto run = [&](const Var& a, const Var& b, SequenceState* state) {
      const Segment piece[] = {{0, a.rows(), state ? state->position : 0, state}};
      const Batch batch{piece, &context};
      const RunningSoftmax past = running_softmax(a, batch, 1);
      return diagonal_scan(past.weight * b, past.log_decay, batch, 0);
    };
    const Var y = run(score, value, nullptr);
    backward(y, d.clone());
    Tensor exact = Tensor::zeros({kRows, 1}), dk = exact.clone(), dv = exact.clone();
    std::vector<double> keys(kRows), values(kRows);
    for (int64_t t = 0; t < kRows; ++t) {
      double top = -INFINITY, total = 0, mean = 0;
      const auto weight = [&](int64_t s) { return std::exp(double{k.data()[s]} - top); };
      for (int64_t s = 0; s <= t; ++s) top = std::fmax(top, k.data()[s]);
      for (int64_t s = 0; s <= t; ++s) total += weight(s);
      for (int64_t s = 0; s <= t; ++s) mean += weight(s) / total * value.value().data()[s];
      for (int64_t s = 0; s <= t; ++s) {
        values[static_cast<size_t>(s)] += d.data()[t] * weight(s) / total;
        keys[static_cast<size_t>(s)] += d.data()[t] * weight(s) / total * (value.value().data()[s] - mean);
      }
      exact.data()[t] = static_cast<float>(mean);
    }
    for (int64_t s = 0; s < kRows; ++s) {
      dk.data()[s] = static_cast<float>(keys[static_cast<size_t>(s)]),
      dv.data()[s] = static_cast<float>(values[static_cast<size_t>(s)]);
      EXPECT_NEAR(score.grad().data()[s], dk.data()[s], 1e-5) << size;
    }
    EXPECT_LE(most_apart(y.value(), exact), 1e-5) << size;
    EXPECT_LE(most_apart(value.grad(), dv), 1e-5) << size;
    NoGrad off;
    SequenceState state;
    Tensor steps({kRows, 1});
    for (int64_t t = 0; t < kRows; ++t, ++state.position)
      steps.slice(t, 1).copy_from(
          run(Var(k.slice(t, 1).clone()), Var(value.value().slice(t, 1).clone()), &state).value());
    EXPECT_LE(most_apart(steps, exact), 1e-5) << size;
  }
}

// What pieces of a sequence keep, each run by itself, combines under any bracketing into what the whole keeps.
struct Kept {
  std::vector<float> log_sum, mean;  // a head; a channel
};
Kept combined(const Kept& a, const Kept& b) {
  Kept c = a;
  const size_t dim = a.mean.size() / a.log_sum.size();
  for (size_t h = 0; h < a.log_sum.size(); ++h) {
    const float top = std::max(a.log_sum[h], b.log_sum[h]);
    const float left = std::exp(a.log_sum[h] - top), right = std::exp(b.log_sum[h] - top);
    c.log_sum[h] = top + std::log(left + right);
    for (size_t i = h * dim; i < (h + 1) * dim; ++i)
      c.mean[i] = (left * a.mean[i] + right * b.mean[i]) / (left + right);
  }
  return c;
}
TEST(SystemsP054, StatesCombineUnderAnyBracketing) {
  auto mixer = make_mixer(kAaren, 32);
  const Tensor x = normal_rows(48, 32, 4);
  const auto kept = [&](int64_t from, int64_t count) {
    SequenceState state;
    run_alone(*mixer, x.slice(from, count).clone(), &state);
    const auto all = [&](size_t field) {
      const auto s = state.layer(0).get(field).value().span();
      return std::vector<float>(s.begin(), s.end());
    };
    return Kept{all(1), all(0)};
  };
  std::vector<Kept> pieces;
  for (int64_t i = 0; i < 16; ++i) pieces.push_back(kept(3 * i, 3));
  const Kept whole = kept(0, 48);
  Rng rng(5);
  for (int trial = 0; trial < 1000; ++trial) {
    std::vector<Kept> left = pieces;
    while (left.size() > 1) {
      const auto at = static_cast<std::ptrdiff_t>(rng.below(std::ssize(left) - 1));
      left[static_cast<size_t>(at)] = combined(left[static_cast<size_t>(at)], left[static_cast<size_t>(at + 1)]);
      left.erase(left.begin() + at + 1);
    }
    for (size_t h = 0; h < whole.log_sum.size(); ++h)
      ASSERT_NEAR(left[0].log_sum[h], whole.log_sum[h], 1e-6 * (1 + std::fabs(whole.log_sum[h]))) << trial;
    for (size_t i = 0; i < whole.mean.size(); ++i) ASSERT_NEAR(left[0].mean[i], whole.mean[i], 1e-6) << trial;
  }
}

TEST(SystemsP054, AStateOfConstantSize) {
  auto mixer = make_mixer(kAaren, 32);
  for (const int64_t n : {20, 500}) {
    SequenceState state;
    run_alone(*mixer, normal_rows(n, 32, 6), &state);
    EXPECT_EQ(state.bytes(), 4 * (32 + 4));
  }
}

// A stream of 4096 tokens: the most that is held at once, of states and workings.
TEST(SystemsP054, AStreamHoldsAFifthOfWhatAttentionHolds) {
  const auto held = [](const Json& part) {
    auto mixer = make_mixer(part, 32);
    const Tensor token = normal_rows(1, 32, 7);
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    SequenceState state;
    for (int t = 0; t < 4096; ++t) run_alone(*mixer, token, &state);
    return memory_counters().peak - base;
  };
  EXPECT_LE(5 * held(kAaren), held("softmax"));
}

TEST(SystemsP054, SpeedAStreamDoesNotSlowDown) {
  EXPECT_LE(step_ratio(kAaren, 64, 100000, 100), 1.05);
}

// Each series swings about a level of its own: x_t = m + 0.8 (x_{t-1} - m) + noise. What comes next?
regression::Series swings(int64_t count, Rng rng) {
  constexpr int64_t kLength = 128;
  regression::Series s = regression::series(count, kLength, 1, 1, true);
  for (int64_t i = 0; i < count; ++i) {
    const double level = rng.normal();
    double x = level + rng.normal();
    for (int64_t t = i * kLength; t < (i + 1) * kLength; ++t) {
      s.inputs.data()[t] = static_cast<float>(x);
      x = level + 0.8 * (x - level) + 0.5 * rng.normal();
      s.answers.data()[t] = static_cast<float>(x);
    }
  }
  return s;
}
TEST(SystemsP054, TrainedForecastsAreAsGoodAsATransformers) {
  const auto error_of = [](const Json& mixer) {
    regression::Follower model({.mixer = mixer, .blocks = 2, .steps = 600, .rate = 5e-3});
    model.train([](Rng rng) { return swings(16, rng); });
    return model.error(swings(200, Rng(92)));
  };
  const double aaren = error_of(kAaren), transformer = error_of("softmax");
  std::printf("forecasts, mean square error: Aaren %.4f, transformer %.4f (noise alone 0.25)\n", aaren, transformer);
  EXPECT_LE(aaren, 1.03 * transformer);
}

}  // namespace sennit::systems_p054_test
