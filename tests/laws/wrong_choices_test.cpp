// The law of choices bites: a mixer that takes the wrong blocks, or too few, breaks it, and breaks no law of forms.
#include <gtest/gtest.h>

#include "laws/wrong/careless.h"

namespace sennit::laws::wrong_choices_test {

std::string broken(const char* name, Carelessness how) {
  for (const MixerLaw& law : mixer_laws())
    if (law.name == std::string(name)) return law.broken_by(careless(how));
  return fmt::format("no law {}", name);
}

TEST(WrongChoices, BreakTheLawOfChoices) {
  EXPECT_EQ(broken("ChoicesAreBest", Carelessness::none), "");
  EXPECT_NE(broken("ChoicesAreBest", Carelessness::takes_first), "");
  EXPECT_NE(broken("ChoicesAreBest", Carelessness::takes_fewer), "");
}

TEST(WrongChoices, BreakNoLawOfForms) {
  for (const char* law : {"ForwardIsNaive", "AnySplit", "Gradients"})
    EXPECT_EQ(broken(law, Carelessness::takes_first), "") << law;
}

}  // namespace sennit::laws::wrong_choices_test
