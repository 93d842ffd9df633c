// The laws bite: a mixer with one of the classic mistakes breaks the law that names it, and the same mixer without a
// mistake breaks none.
#include <gtest/gtest.h>

#include "laws/wrong/leaky.h"

namespace sennit::laws {
namespace {

TEST(WrongMixers, WithoutAMistakeEveryLawHolds) {
  for (const MixerLaw& law : mixer_laws()) EXPECT_EQ(law.check(leaky(Fault::none)), "") << law.name;
}

class WrongMixers : public testing::TestWithParam<FaultCase> {};

TEST_P(WrongMixers, BreakTheirLaw) {
  for (const MixerLaw& law : mixer_laws()) {
    if (law.name != std::string(GetParam().law)) continue;
    EXPECT_NE(law.check(leaky(GetParam().fault)), "");
    return;
  }
  FAIL() << "no law " << GetParam().law;
}

INSTANTIATE_TEST_SUITE_P(All, WrongMixers, testing::ValuesIn(fault_cases()), [](const auto& c) { return std::string(c.param.name); });

}  // namespace
}  // namespace sennit::laws
