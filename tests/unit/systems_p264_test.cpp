// Cottention (Mongaras et al., arXiv:2409.18747): its forms, its bounds, its state over long sequences, and its loss.
#include <gtest/gtest.h>

#include "support/language.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p264_test {

TEST(SystemsP264, ChunksStepsAndTheSquareAgree) {
  auto mixer = make_mixer("cottention", 32);
  const Tensor x = normal_rows(300, 32, 8), whole = run_alone(*mixer, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-5);
  EXPECT_LE(most_apart(run_square(*mixer, x), whole), 1e-5);
}

TEST(SystemsP264, TheLengthsOfQueriesAndKeysDoNotMatter) {
  auto mixer = make_mixer("cottention", 32);
  const Tensor x = normal_rows(80, 32, 9);
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional}) {
    const Tensor before = run_alone(*mixer, x, nullptr, p);
    for (float& w : parameter_of(*mixer, "q.weight").var.value().span()) w *= 50;
    for (float& w : parameter_of(*mixer, "k.weight").var.value().span()) w *= 0.02f;
    EXPECT_LE(most_apart(run_alone(*mixer, x, nullptr, p), before), 1e-6);
  }
}

TEST(SystemsP264, AWeightIsAtMostOne) {
  NoGrad off;
  auto mixer = make_mixer("cottention", 32);
  const auto m = mixer->implicit(Var(normal_rows(80, 32, 10)), {});
  for (const float w : m->weights.span()) ASSERT_LE(std::fabs(w), 1 + 1e-6);
}

TEST(SystemsP264, AStateOfConstantSizeThatLosesLittle) {
  constexpr int64_t kDim = 16, kRows = 32768;
  auto mixer = make_mixer("cottention", kDim);
  const Tensor x = normal_rows(kRows, kDim, 11);
  SequenceState state;
  run_alone(*mixer, x.slice(0, 20).clone(), &state);
  const int64_t bytes = state.bytes();
  run_alone(*mixer, x.slice(20, kRows - 20).clone(), &state);
  EXPECT_EQ(state.bytes(), bytes);

  const auto doubles = [](const Tensor& t) {
    naive::Matrix m(t.rank() == 1 ? 1 : t.rows(), t.rank() == 1 ? t.elements() : t.row_size());
    m.a.assign(t.span().begin(), t.span().end());
    return m;
  };
  naive::Weights w;
  mixer->parameters([&](const std::string& name, Parameter& p) { w[name] = doubles(p.value()); });
  const naive::Matrix in = doubles(x);
  NaiveRun run{w, in};
  mixer->naive(run);
  const naive::Matrix& S = run.state["S"];
  Tensor exact(state.layer(0).get(0).shape());
  std::copy(S.a.begin(), S.a.end(), exact.data());
  EXPECT_LE(most_apart(state.layer(0).get(0).value(), exact), 1e-4);
}

TEST(SystemsP264, SpeedTimeGrowsWithTheLength) {
  const double ratio = time_ratio("cottention", 64, 32768, 8192);
  EXPECT_GE(ratio, 3.6);
  EXPECT_LE(ratio, 4.5);
}

TEST(SystemsP264, TrainedLossBesideSoftmax) {
  const trained::Settings settings{.steps = 600, .rate = 5e-3};
  const double cosine = trained::text_loss(trained::two_blocks("cottention"), settings),
               softmax = trained::text_loss(trained::two_blocks(trained::kSoftmax), settings);
  std::printf("nats a byte: cottention %.3f, softmax %.3f\n", cosine, softmax);
  EXPECT_LE(cosine, softmax + 0.25);
}

}  // namespace sennit::systems_p264_test
