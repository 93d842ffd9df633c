// The models that tests train.
#include "support/trained.h"

#include <gtest/gtest.h>

namespace sennit::trained_test {

const Json kSmall = {{"d_model", 32}, {"blocks", {{{"mixer", "gla"}, {"conv", 3}, {"channel", "mlp"}}}}};

TEST(Trainee, LearnsTextAndRepeatsItselfToTheBit) {
  const trained::Settings none{.steps = 0}, some{.steps = 60, .rate = 1e-2};
  const trained::TextSettings small{.rows = 4, .length = 64, .kept_length = 64};
  const double before = trained::text_loss(kSmall, none, small), after = trained::text_loss(kSmall, some, small);
  EXPECT_NEAR(before, std::log(256.0), 1.0);
  EXPECT_LT(after, 3.6);
  EXPECT_EQ(after, trained::text_loss(kSmall, some, small));
}

// The token that came two before.
TEST(Trainee, CountsWhatIsAskedAndOnlyThat) {
  Json file = kSmall;
  file["vocab"] = 4;
  trained::Trainee trainee(file, {.steps = 60, .rate = 1e-2});
  const auto rows = [](int64_t, Rng rng) {
    trained::Rows r;
    std::vector<int32_t> tokens, targets;
    for (int64_t t = 0; t < 200; ++t) {
      tokens.push_back(static_cast<int32_t>(rng.below(4)));
      targets.push_back(t < 2 ? data::kIgnored : tokens[static_cast<size_t>(t - 2)]);
    }
    r.add(tokens, targets);
    return r;
  };
  const trained::Rows asked = rows(0, Rng(99));
  EXPECT_LT(trainee.accuracy(asked), 0.5);
  trainee.train(rows);
  EXPECT_GT(trainee.accuracy(asked), 0.95);
}

}  // namespace sennit::trained_test
