// TransNormer (Qin et al., arXiv:2210.10340): its time, and its loss beside linear attention with a denominator and softmax.
#include <gtest/gtest.h>

#include "support/language.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p060_test {

const Json kNormed = {{"name", "gla"}, {"decay", "fixed"}, {"feature", "silu"}, {"expand_k", 1}};

TEST(SystemsP060, SpeedTimeGrowsWithTheLength) {
  const double ratio = time_ratio(kNormed, 64, 16384, 4096);
  EXPECT_GE(ratio, 3.5);
  EXPECT_LE(ratio, 4.6);
}

TEST(SystemsP060, TrainedLossBesideADenominatorAndSoftmax) {
  const trained::Settings settings{.steps = 600, .rate = 5e-3};
  const double normed = trained::text_loss(trained::two_blocks(kNormed), settings),
               divided = trained::text_loss(trained::two_blocks({{"name", "gla"}, {"decay", "none"}, {"feature", "elu"}, {"divide", true}, {"expand_k", 1}}), settings),
               softmax = trained::text_loss(trained::two_blocks("softmax"), settings);
  std::printf("nats a byte: NormAttention %.3f, linear attention %.3f, softmax %.3f\n", normed, divided, softmax);
  EXPECT_LE(normed, divided - 0.05);
  EXPECT_LE(normed, softmax + 0.1);
}

}  // namespace sennit::systems_p060_test
