// Telling where equal tokens stand, the task of Luo et al. (arXiv:2205.13401) for URPE (P006).
#include <gtest/gtest.h>

#include "support/mixers.h"
#include "support/trained.h"

namespace sennit::systems_position_task_test {

constexpr int64_t kTokens = 64;

Json two_layers(bool gains) {
  return {{"vocab", kTokens},
          {"d_model", 32},
          {"pattern", "bidirectional"},
          {"blocks", {{{"repeat", 2}, {"mixer", "urpe"}, {"length", kTokens}, {"gains", gains}, {"channel", "mlp"}}}}};
}
trained::Rows equal_tokens() {
  trained::Rows rows;
  std::vector<int32_t> places;
  for (int32_t t = 0; t < kTokens; ++t) places.push_back(t);
  rows.add(std::vector<int32_t>(kTokens, 7), places);
  return rows;
}

TEST(SystemsP006, TrainedGainsTellWhereEqualTokensStand) {
  for (const bool gains : {false, true}) {
    trained::Trainee trainee(two_layers(gains), {.steps = 600, .rate = 1e-2, .pattern = Pattern::bidirectional});
    const trained::Rows rows = equal_tokens();
    trainee.train([&](int64_t, Rng) { return rows; });
    const double accuracy = trainee.accuracy(rows);
    std::printf("%s: accuracy %.4f\n", gains ? "URPE" : "relative biases", accuracy);
    if (gains) {
      EXPECT_GE(accuracy, 0.99);
      continue;
    }
    EXPECT_EQ(accuracy, 1.0 / kTokens);
    NoGrad off;
    const Context context;
    const Tensor hidden =
        trainee.model().hidden(rows.tokens, {rows.segments, &context, Pattern::bidirectional}).value();
    for (int64_t t = 1; t < kTokens; ++t) EXPECT_LT(most_apart(hidden.slice(t, 1), hidden.slice(0, 1)), 1e-6) << t;
  }
}

}  // namespace sennit::systems_position_task_test
