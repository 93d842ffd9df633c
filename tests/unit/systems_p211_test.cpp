// Latte (Dolga et al., arXiv:2402.17512): its forms under large logits, the weights it amounts to, and its time.
#include <gtest/gtest.h>

#include "support/mixer_timing.h"

namespace sennit::systems_p211_test {

TEST(SystemsP211, FormsAgreeWithLogitsAroundTwoHundred) {
  auto mixer = make_mixer("latte", 32);
  Tensor x = normal_rows(300, 32, 3);
  for (int64_t t = 0; t < 300; ++t) x.data()[t * 32] = 1;  // a column of ones: its weights are shifts
  Tensor& k = parameter_of(*mixer, "k.weight").var.value();
  for (int64_t i = 0; i < k.rows(); ++i) k.data()[i * 32] += 200;
  const Tensor whole = run_alone(*mixer, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-5);
  EXPECT_LE(most_apart(run_square(*mixer, x), whole), 1e-5);
  for (const float y : run_alone(*mixer, x, nullptr, Pattern::bidirectional).span()) ASSERT_TRUE(std::isfinite(y));
}

TEST(SystemsP211, RowsOfTheImplicitMatrixAreMeans) {
  NoGrad off;
  auto mixer = make_mixer("latte", 32);
  const auto m = mixer->implicit(Var(normal_rows(60, 32, 4)), {});
  const Tensor& w = m->weights;
  for (int64_t row = 0; row < w.shape(0) * 60; ++row) {
    double sum = 0;
    for (int64_t j = 0; j < 60; ++j) {
      ASSERT_GE(w.data()[row * 60 + j], 0);
      sum += w.data()[row * 60 + j];
    }
    ASSERT_NEAR(sum, 1, 1e-6) << row;
  }
}

// The last of a causal sequence has seen all of it, as every token of the other pattern has.
TEST(SystemsP211, TheLastTokenIsTheSameInBothPatterns) {
  auto mixer = make_mixer("latte", 32);
  const Tensor x = normal_rows(200, 32, 5);
  EXPECT_LE(most_apart(run_alone(*mixer, x, nullptr, Pattern::bidirectional).slice(199, 1),
                       run_alone(*mixer, x).slice(199, 1)),
            1e-5);
}

TEST(SystemsP211, SpeedTimeGrowsWithTheLengthAndNotForAToken) {
  const double ratio = time_ratio("latte", 64, 16384, 4096, Pattern::bidirectional);
  EXPECT_GE(ratio, 3.5);
  EXPECT_LE(ratio, 4.6);
  EXPECT_LE(step_ratio("latte", 64, 32768, 1024), 1.1);
}

}  // namespace sennit::systems_p211_test
