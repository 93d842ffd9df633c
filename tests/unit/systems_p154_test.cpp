// The expressive leaky memory neuron (Spieler et al., arXiv:2306.16922): how its memories fade, and what a small one
// learns.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "support/digits.h"
#include "support/mixers.h"
#include "support/regression.h"
#include "support/trained.h"

namespace sennit::systems_p154_test {

// Against central differences of the definition in double: relative to the gradient, which is that of the last token's
// sum.
TEST(SystemsP154, GradientsReachThroughAThousandSteps) {
  constexpr int64_t kDim = 8, kRows = 1000;
  auto mixer = make_mixer({{"name", "elm"}, {"memories", 6}, {"longest", 1000}}, kDim);
  const Var x = Var::leaf(normal_rows(kRows, kDim, 1));
  const Context context;
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  backward(sum(rows(mixer->forward(x, {whole, &context}), kRows - 1, 1)));

  const auto doubles = [](const Tensor& t) {
    naive::Matrix m(t.rank() == 1 ? 1 : t.rows(), t.rank() == 1 ? t.elements() : t.row_size());
    m.a.assign(t.span().begin(), t.span().end());
    return m;
  };
  naive::Matrix in = doubles(x.value());
  naive::Weights w;
  mixer->parameters([&](const std::string& name, Parameter& p) { w[name] = doubles(p.value()); });
  const auto difference = [&](double& at) {
    const double kept = at, by = 1e-6;
    const auto last = [&](double value) {
      at = value;
      NaiveRun run{w, in};
      const naive::Matrix y = mixer->naive(run);
      return std::accumulate(y.a.end() - kDim, y.a.end(), 0.0);
    };
    const double slope = (last(kept + by) - last(kept - by)) / (2 * by);
    at = kept;
    return slope;
  };
  const auto expect_same = [&](const float* gradient, double* at, int64_t count, const std::string& of) {
    double apart = 0, size = 0;
    for (int64_t i = 0; i < count; ++i) {
      const double slope = difference(at[i]);
      apart = std::fmax(apart, std::fabs(gradient[i] - slope)), size = std::fmax(size, std::fabs(slope));
    }
    EXPECT_LE(apart, 1e-3 * size) << of;
    EXPECT_GT(size, 0) << of;
  };
  for (const int64_t t : {0, 500, 999})
    expect_same(x.grad().data() + t * kDim, &in(t, 0), kDim, fmt::format("input {}", t));
  mixer->parameters([&](const std::string& name, Parameter& p) {
    expect_same(p.var.grad().data(), w[name].a.data(), std::min<int64_t>(8, p.value().elements()), name);
  });
}

TEST(SystemsP154, WithoutInputAMemoryFadesByItsTime) {
  auto mixer = make_mixer({{"name", "elm"}, {"memories", 6}, {"longest", 100}}, 32);
  for (const char* name : {"recur", "shift", "hidden.bias"}) parameter_of(*mixer, name).var.value().fill(0);
  SequenceState state;
  run_alone(*mixer, normal_rows(1, 32, 6), &state);
  // Only the memories are left; the synapses forget what they had.
  state.layer(0).set(0, Var(Tensor::zeros({1, 32})));
  state.layer(0).set(1, Var(Tensor::full({1, 1, 6}, 1)));
  run_alone(*mixer, Tensor::zeros({20, 32}), &state);
  for (int64_t i = 0; i < 6; ++i) {
    const double tau = std::pow(100.0, (static_cast<double>(i) + 0.5) / 6);
    EXPECT_NEAR(state.layer(0).get(1).value().data()[i], std::exp(-20 / tau), 1e-5) << i;
  }
}

TEST(SystemsP154, AStateOfItsMemoriesAndBranches) {
  auto mixer = make_mixer({{"name", "elm"}, {"memories", 12}, {"branches", 8}}, 32);
  for (const int64_t n : {10, 300}) {
    SequenceState state;
    run_alone(*mixer, normal_rows(n, 32, 7), &state);
    EXPECT_EQ(state.bytes(), (12 + 8) * 4);
  }
}

TEST(SystemsP154, StepByStepIsTheWholeRunToTheBit) {
  NoGrad off;
  auto mixer = make_mixer({{"name", "elm"}, {"memories", 12}, {"branches", 8}}, 32);
  const Tensor x = normal_rows(200, 32, 9);
  const Context exact{.exact = true};
  const auto run = [&](int64_t from, int64_t count, SequenceState* state) {
    const Segment piece[] = {{0, count, from, state}};
    return mixer->forward(Var(x.slice(from, count).clone()), {piece, &exact}).value();
  };
  const Tensor whole = run(0, 200, nullptr);
  SequenceState state;
  for (int64_t t = 0; t < 200; ++t) ASSERT_EQ(most_apart(run(t, 1, &state), whole.slice(t, 1)), 0) << t;
}

// Three numbers come early, and then nothing for 200 tokens: what was their sum?
regression::Series delayed(int64_t count, Rng rng) {
  constexpr int64_t kEarly = 18, kLength = kEarly + 200;
  regression::Series s = regression::series(count, kLength, 1, 1, false);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t part = 0; part < 3; ++part) {
      const auto number = static_cast<float>(rng.uniform() - 0.5);
      s.inputs.data()[i * kLength + part * 6 + rng.below(6)] = number;
      s.answers.data()[i] += number;
    }
  return s;
}
TEST(SystemsP154, TrainedItAddsOverADelayThatAnLstmForgets) {
  const auto error_of = [](const Json& mixer) {
    regression::Follower model({.mixer = mixer, .width = 32, .steps = 500, .rate = 1e-2});
    EXPECT_LE(model.parameter_count(), 10000);
    std::printf("%lld parameters\n", static_cast<long long>(model.parameter_count()));
    model.train([](Rng rng) { return delayed(16, rng); });
    return model.error(delayed(200, Rng(97)));
  };
  const double elm = error_of({{"name", "elm"}, {"memories", 54}, {"longest", 1000}}),
               lstm = error_of({{"name", "rnn"}, {"cell", "lstm"}, {"heads", 1}});
  std::printf("sum after 200 tokens, mean square error: ELM %.5f, LSTM %.5f (saying 0: 0.25)\n", elm, lstm);
  EXPECT_LT(elm, lstm);
  EXPECT_LT(elm, 0.125);
}

// Images of 8 by 8, pixel after pixel, in eight shades: which digit?
trained::Rows images(int64_t count, Rng rng) {
  constexpr int64_t kPixels = 64;
  trained::Rows r;
  for (int64_t i = 0; i < count; ++i) {
    const auto digit = static_cast<int32_t>(rng.below(10));
    std::vector<int32_t> tokens, targets(kPixels, data::kIgnored);
    for (const float ink : digits::drawn(digit, 8, rng.fork("image").fork(static_cast<uint64_t>(i))))
      tokens.push_back(std::min(7, static_cast<int32_t>(8 * ink)));
    targets.back() = digit;
    r.add(tokens, targets);
  }
  return r;
}
TEST(SystemsP154, TrainedToReadDigitsPixelByPixel) {
  trained::Trainee trainee({{"vocab", 10},
                            {"d_model", 32},
                            {"blocks", {{{"mixer", "elm"}, {"memories", 96}, {"longest", 150}, {"channel", "none"}}}}},
                           {.steps = 1500, .rate = 1e-2});
  trainee.train([](int64_t, Rng rng) { return images(32, rng); });
  const double accuracy = trainee.accuracy(images(1000, Rng(96)));
  std::printf("digits of 8 by 8, pixel by pixel: %.1f %%\n", 100 * accuracy);
  EXPECT_GE(accuracy, 0.93);
}

}  // namespace sennit::systems_p154_test
