// The laws bite: a mixer with one of the classic mistakes breaks the law that names it, and the same mixer without a
// mistake breaks none.
#include <gtest/gtest.h>

#include "laws/wrong/leaky.h"
#include "laws/wrong/spread.h"

namespace sennit::laws::wrong_mixers_test {

void expect_every_law(const MixerCase& c) {
  for (const MixerLaw& law : mixer_laws()) EXPECT_EQ(law.broken_by(c), "") << law.name;
}
TEST(WrongMixers, WithoutAMistakeEveryLawHolds) {
  expect_every_law(leaky(Fault::none));
  expect_every_law(spread(SpreadFault::none));
}

TEST(WrongMixers, LawsConcernWhatIsDeclared) {
  std::vector<std::string> causal, across;
  for (const MixerLaw& law : mixer_laws()) {
    const bool a = law.concerns(leaky(Fault::none)), b = law.concerns(spread(SpreadFault::none));
    if (a != b) (a ? causal : across).push_back(law.name);
  }
  EXPECT_EQ(causal, (std::vector<std::string>{"AnySplit", "ExactSplits", "Snapshots", "CausalToTheBit",
                                              "ChoicesAreBest", "AuxiliaryLosses"}));
  EXPECT_EQ(across, std::vector<std::string>{"CrossSplits"});
}

void expect_broken(const MixerCase& c, const std::string& name) {
  for (const MixerLaw& law : mixer_laws()) {
    if (law.name != name) continue;
    EXPECT_NE(law.broken_by(c), "");
    return;
  }
  FAIL() << "no law " << name;
}

class WrongMixers : public testing::TestWithParam<FaultCase> {};
TEST_P(WrongMixers, BreakTheirLaw) {
  expect_broken(leaky(GetParam().fault), GetParam().law);
}
INSTANTIATE_TEST_SUITE_P(All, WrongMixers, testing::ValuesIn(fault_cases()),
                         [](const auto& c) { return std::string(c.param.name); });

class WrongAcross : public testing::TestWithParam<SpreadFaultCase> {};
TEST_P(WrongAcross, BreakTheirLaw) {
  expect_broken(spread(GetParam().fault), GetParam().law);
}
INSTANTIATE_TEST_SUITE_P(All, WrongAcross, testing::ValuesIn(spread_fault_cases()),
                         [](const auto& c) { return std::string(c.param.name); });

}  // namespace sennit::laws::wrong_mixers_test
