// Every registered mixer, with each of its named settings, under every law.
#include <gtest/gtest.h>

#include "laws/mixer_laws.h"

namespace sennit::laws {
namespace {

class MixerLaws : public testing::TestWithParam<std::tuple<size_t, size_t>> {};

TEST_P(MixerLaws, Hold) {
  const MixerCase c = registered_mixers()[std::get<0>(GetParam())];
  const MixerLaw& law = mixer_laws()[std::get<1>(GetParam())];
  EXPECT_EQ(law.check(c), "") << c.name << " breaks " << law.name;
}

std::string case_name(const testing::TestParamInfo<std::tuple<size_t, size_t>>& info) {
  std::string name = registered_mixers()[std::get<0>(info.param)].name + "_" + mixer_laws()[std::get<1>(info.param)].name;
  std::replace_if(name.begin(), name.end(), [](char ch) { return !std::isalnum(static_cast<unsigned char>(ch)); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, MixerLaws,
                         testing::Combine(testing::Range<size_t>(0, registered_mixers().size()), testing::Range<size_t>(0, mixer_laws().size())),
                         case_name);

}  // namespace
}  // namespace sennit::laws
