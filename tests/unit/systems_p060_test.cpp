// TransNormer (Qin et al., arXiv:2210.10340): its time grows with the length.
#include <gtest/gtest.h>

#include "support/mixer_timing.h"

namespace sennit::systems_p060_test {

const Json kNormed = {{"name", "gla"}, {"decay", "fixed"}, {"feature", "silu"}, {"expand_k", 1}};

TEST(SystemsP060, SpeedTimeGrowsWithTheLength) {
  const double ratio = time_ratio(kNormed, 64, 16384, 4096);
  EXPECT_GE(ratio, 3.5);
  EXPECT_LE(ratio, 4.6);
}

}  // namespace sennit::systems_p060_test
