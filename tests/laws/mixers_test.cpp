// Every registered mixer, with each of its named settings, under every law that concerns it.
#include <gtest/gtest.h>

#include "laws/mixer_laws.h"

namespace sennit::laws::mixers_test {

struct Trial {
  MixerCase mixer;
  MixerLaw law;
};

void PrintTo(const Trial& t, std::ostream* out) {
  *out << t.mixer.name << " under " << t.law.name;
}

class MixerLaws : public testing::TestWithParam<Trial> {};

TEST_P(MixerLaws, Hold) {
  const auto& [mixer, law] = GetParam();
  EXPECT_EQ(law.broken_by(mixer), "") << mixer.name << " breaks " << law.name;
}

std::vector<Trial> trials() {
  std::vector<Trial> all;
  for (const MixerCase& c : registered_mixers())
    for (const MixerLaw& law : mixer_laws())
      if (law.concerns(c)) all.push_back({c, law});
  return all;
}

std::string trial_name(const testing::TestParamInfo<Trial>& info) {
  std::string name = info.param.mixer.name + "_" + info.param.law.name;
  std::replace_if(
      name.begin(), name.end(), [](char ch) { return !std::isalnum(static_cast<unsigned char>(ch)); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, MixerLaws, testing::ValuesIn(trials()), trial_name);

}  // namespace sennit::laws::mixers_test
