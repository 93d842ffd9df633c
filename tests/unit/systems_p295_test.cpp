// Attention with fewer matrices (Bermeitinger et al., arXiv:2410.13732), trained: digits drawn here, and text.
#include <gtest/gtest.h>

#include <array>

#include "support/trained.h"

namespace sennit::systems_p295_test {

constexpr int64_t kSide = 16, kPatches = kSide * kSide / 4;
constexpr int32_t kAsk = 16, kDigits = 17, kVocab = 27;  // 16 patches of 2 x 2 dots, a question, ten digits

// The usual 5 x 7 letter shapes, a row in five bits.
constexpr std::array<std::array<int, 7>, 10> kShapes = {{{14, 17, 19, 21, 25, 17, 14},
                                                         {4, 12, 4, 4, 4, 4, 14},
                                                         {14, 17, 1, 2, 4, 8, 31},
                                                         {31, 2, 4, 2, 1, 17, 14},
                                                         {2, 6, 10, 18, 31, 2, 2},
                                                         {31, 16, 30, 1, 1, 17, 14},
                                                         {6, 8, 16, 30, 17, 17, 14},
                                                         {31, 1, 2, 4, 8, 8, 8},
                                                         {14, 17, 17, 14, 17, 17, 14},
                                                         {14, 17, 17, 15, 1, 2, 12}}};

// A digit of 10 x 14 dots somewhere in 16 x 16, one dot in fifty turned over.
void add_picture(trained::Rows& rows, Rng& rng) {
  const int64_t digit = rng.below(10), left = rng.below(7), top = rng.below(3);
  std::vector<int32_t> tokens(kPatches + 1, 0), targets(kPatches + 1, data::kIgnored);
  for (int64_t y = 0; y < kSide; ++y)
    for (int64_t x = 0; x < kSide; ++x) {
      const int64_t row = (y - top) / 2, column = (x - left) / 2;
      const bool inside = y >= top && x >= left && row < 7 && column < 5;
      const bool dot = inside && (kShapes[digit][row] >> (4 - column)) % 2 == 1;
      if (dot != (rng.uniform() < 0.02)) tokens[y / 2 * (kSide / 2) + x / 2] |= 1 << (y % 2 * 2 + x % 2);
    }
  tokens[kPatches] = kAsk;
  targets[kPatches] = kDigits + static_cast<int32_t>(digit);
  rows.add(tokens, targets);
}
trained::Rows pictures(int64_t count, Rng rng) {
  trained::Rows rows;
  for (int64_t i = 0; i < count; ++i) add_picture(rows, rng);
  return rows;
}

Json reader_of_digits(const Json& block) {
  return {{"vocab", kVocab},
          {"d_model", 64},
          {"pattern", "bidirectional"},
          {"learned_positions", kPatches + 1},
          {"blocks", {block}}};
}

TEST(SystemsP295, TrainedOnDigits) {
  const Json whole = {{"repeat", 3},
                      {"mixer", "minimal"},
                      {"scores", "separate"},
                      {"values", true},
                      {"channel", "mlp"}},
             least = {{"repeat", 6}, {"mixer", "minimal"}, {"scores", "symmetric"}, {"channel", "none"}};
  double accuracy[2];
  int64_t parameters[2];
  for (const bool few : {false, true}) {
    trained::Trainee trainee(reader_of_digits(few ? least : whole),
                             {.steps = 600, .rate = few ? 1e-2 : 3e-3, .pattern = Pattern::bidirectional});
    trainee.train([](int64_t, Rng rng) { return pictures(32, rng); });
    accuracy[few] = trainee.accuracy(pictures(1000, Rng(99)));
    parameters[few] = trainee.model().parameter_count();
    std::printf("%s: %ld parameters, accuracy %.4f\n", few ? "symmetric, no MLP, no values" : "all matrices",
                parameters[few], accuracy[few]);
  }
  EXPECT_LE(parameters[1], parameters[0] / 5);
  EXPECT_GE(accuracy[0], 0.9);
  EXPECT_GE(accuracy[1], accuracy[0] - 0.02);
}

// What fewer matrices cost a model of text is told, not asked for.
TEST(SystemsP295, TrainedOnText) {
  const auto loss = [](const Json& part) {
    Json block = {{"repeat", 2}, {"mixer", "minimal"}, {"scores", "separate"}, {"values", true}, {"channel", "mlp"}};
    block.update(part);
    return trained::text_loss({{"d_model", 64}, {"blocks", {block}}}, {.steps = 400, .rate = 5e-3});
  };
  const double whole = loss(Json::object());
  EXPECT_LT(whole, 2.6);  // letters alone give 3.1
  std::printf("all matrices %.3f nats\n", whole);
  for (const Json& part :
       {Json{{"scores", "collapsed"}}, Json{{"scores", "symmetric"}}, Json{{"values", false}},
        Json{{"channel", "none"}}, Json{{"scores", "symmetric"}, {"values", false}, {"channel", "none"}}}) {
    const double fewer = loss(part);
    EXPECT_TRUE(std::isfinite(fewer));
    std::printf("%s: %+.3f nats\n", json_text(part).c_str(), fewer - whole);
  }
}

}  // namespace sennit::systems_p295_test
