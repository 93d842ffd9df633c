// Gated associative memory (Acharya, arXiv:2509.00605): how far a token hears, what its memory can say, its time and
// its loss.
#include <gtest/gtest.h>

#include "support/language.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p282_test {

TEST(SystemsP282, ATokenReachesTheConvolutionsWidth) {
  auto mixer = make_mixer({{"name", "gam"}, {"conv", 4}}, 32);
  const Tensor x = normal_rows(60, 32, 11), before = run_alone(*mixer, x);
  Tensor changed = x.clone();
  for (float& v : changed.slice(20, 1).span()) v += 1;
  const Tensor after = run_alone(*mixer, changed);
  for (int64_t t = 0; t < 60; ++t) {
    const bool same = std::equal(before.slice(t, 1).span().begin(), before.slice(t, 1).span().end(),
                                 after.slice(t, 1).span().begin());
    EXPECT_EQ(same, t < 20 || t > 23) << t;
  }
}

TEST(SystemsP282, TheMemoryAnswersWithinItsRows) {
  auto mixer = make_mixer({{"name", "gam"}, {"slots", 9}}, 32);
  for (const char* name : {"conv", "shift"}) parameter_of(*mixer, name).var.value().fill(0);
  parameter_of(*mixer, "gates.weight").var.value().fill(0);
  parameter_of(*mixer, "gates.bias").var.value().fill(60);  // open
  const Tensor& bank = parameter_of(*mixer, "bank").value();
  const Tensor y = run_alone(*mixer, normal_rows(50, 32, 12));
  for (int64_t c = 0; c < 32; ++c) {
    float low = INFINITY, high = -INFINITY;
    for (int64_t m = 0; m < 9; ++m)
      low = std::fmin(low, bank.data()[m * 32 + c]), high = std::fmax(high, bank.data()[m * 32 + c]);
    for (int64_t t = 0; t < 50; ++t)
      ASSERT_TRUE(y.data()[t * 32 + c] >= low - 1e-6 && y.data()[t * 32 + c] <= high + 1e-6);
  }
}

// Three blocks of width 4 hear 3 * 3 + 1 tokens: one that is further away changes no logit.
constexpr int64_t kBlocks = 3, kConv = 4, kField = kBlocks * (kConv - 1) + 1;
Json model_file(int64_t vocab) {
  const Json block = {{"mixer", {{"name", "gam"}, {"conv", kConv}}}, {"channel", "mlp"}};
  return {{"vocab", vocab}, {"d_model", 32}, {"blocks", {block, block, block}}};
}
TEST(SystemsP282, AModelHearsItsConvolutionsTogetherAndNoMore) {
  NoGrad off;
  trained::Trainee trainee(model_file(32), {.steps = 0});
  std::vector<int32_t> tokens;
  Rng rng(1);
  for (int i = 0; i < 40; ++i) tokens.push_back(static_cast<int32_t>(rng.below(32)));
  const auto logits = [&] {
    const Context context;
    const Segment whole[] = {{0, 40, 0, nullptr}};
    return trainee.model().logits(trainee.model().hidden(tokens, {whole, &context}), context).value();
  };
  const Tensor before = logits();
  constexpr int64_t kChanged = 12;
  tokens[kChanged] = (tokens[kChanged] + 1) % 32;
  const Tensor after = logits();
  for (int64_t t = 0; t < 40; ++t)
    EXPECT_EQ(same_numbers(before.slice(t, 1), after.slice(t, 1)), t < kChanged || t >= kChanged + kField) << t;
}

TEST(SystemsP282, SpeedATokenCostsTheSameAndHalfOfAttention) {
  const double ratio = time_ratio("gam", 64, 8192, 512) / 16;
  EXPECT_GE(ratio, 0.9);
  EXPECT_LE(ratio, 1.1);
  EXPECT_LE(time_against("gam", "softmax", 64, 2048), 0.5);
}

constexpr int32_t kValues = 8, kAsk = 8, kVocab = 16;

// A value, noise for longer than the field, and the question: only luck answers.
TEST(SystemsP282, TrainedRecallBeyondTheFieldIsChance) {
  const auto rows = [](int64_t distance, Rng rng) {
    trained::Rows r;
    for (int i = 0; i < 32; ++i) {
      std::vector<int32_t> tokens, targets(static_cast<size_t>(distance + 1), data::kIgnored);
      tokens.push_back(static_cast<int32_t>(rng.below(kValues)));
      for (int64_t t = 1; t < distance; ++t) tokens.push_back(9 + static_cast<int32_t>(rng.below(kVocab - 9)));
      tokens.push_back(kAsk);
      targets.back() = tokens[0];
      r.add(tokens, targets);
    }
    return r;
  };
  const auto accuracy = [&](int64_t distance) {
    trained::Trainee trainee(model_file(kVocab), {.steps = 400, .rate = 5e-3});
    trainee.train([&](int64_t, Rng rng) { return rows(distance, rng); });
    double right = 0;
    for (uint64_t seed = 0; seed < 20; ++seed) right += trainee.accuracy(rows(distance, Rng(500 + seed))) / 20;
    return right;
  };
  const double within = accuracy(4), beyond = accuracy(kField);
  std::printf("recall: %.3f within the field, %.3f beyond (chance 0.125)\n", within, beyond);
  EXPECT_GE(within, 0.95);
  EXPECT_LE(beyond, 0.125 + 0.05);  // 640 questions: four deviations
}

TEST(SystemsP282, TrainedLossBesideATransformerAndTheConvolutionAlone) {
  const trained::Settings settings{.steps = 600, .rate = 5e-3};
  const double gam = trained::text_loss(trained::two_blocks("gam"), settings),
               conv = trained::text_loss(trained::two_blocks({{"name", "gam"}, {"slots", 0}}), settings),
               softmax = trained::text_loss(trained::two_blocks("softmax"), settings);
  std::printf("nats a byte: GAM %.3f, its convolution alone %.3f, transformer %.3f\n", gam, conv, softmax);
  EXPECT_LT(gam, std::log(256.0) / 2);
}

}  // namespace sennit::systems_p282_test
