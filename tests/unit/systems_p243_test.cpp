// BigBird (Zaheer et al., arXiv:2007.14062): windows, random blocks, and first blocks that join everything.
#include <gtest/gtest.h>

#include "support/planted.h"
#include "support/receptive.h"
#include "support/timing.h"

namespace sennit::systems_p243_test {

Json with(const Json& options) {
  Json part = {{"name", "bigbird"}};
  part.update(options);
  return part;
}

TEST(SystemsP243, AWindowOfEverythingIsDenseAttention) {
  const int64_t n = 333;
  const Tensor x = normal_rows(n, 32, 2);
  const auto dense = make_mixer("softmax", 32);
  for (const Pattern pattern : {Pattern::bidirectional, Pattern::causal}) {
    const Tensor want = run_alone(*dense, x, nullptr, pattern);
    const auto small = make_mixer(with({{"block", 16}, {"window", 43}, {"global", 0}, {"random", 0}}), 32);
    EXPECT_LE(most_apart(run_alone(*small, x, nullptr, pattern), want), 1e-5) << to_string(pattern);
    const auto whole = make_mixer(with({{"block", 64}, {"window", 13}, {"global", 0}, {"random", 0}}), 32);
    EXPECT_EQ(most_apart(run_alone(*whole, x, nullptr, pattern), want), 0) << to_string(pattern);
  }
}

// Which rows change when a token does: those that read it.
std::vector<bool> moved_by(Mixer& mixer, const Tensor& x, int64_t token, int layers) {
  Tensor before = x.clone(), after = x.clone();
  for (float& v : after.slice(token, 1).span()) v += 1;
  for (int l = 0; l < layers; ++l) {
    before = run_alone(mixer, before, nullptr, Pattern::bidirectional);
    after = run_alone(mixer, after, nullptr, Pattern::bidirectional);
  }
  std::vector<bool> moved(x.rows());
  for (int64_t i = 0; i < x.rows(); ++i)
    for (int64_t c = 0; c < x.row_size(); ++c)
      if (before.data()[i * x.row_size() + c] != after.data()[i * x.row_size() + c]) moved[i] = true;
  return moved;
}

TEST(SystemsP243, TwoLayersJoinEverything) {
  const int64_t n = 160;
  const auto mixer = make_mixer(with({{"block", 8}, {"global", 1}, {"window", 3}, {"random", 1}, {"heads", 2}}), 16);
  const Tensor x = normal_rows(n, 16, 2);
  for (const int64_t token : {0, 7, 8, 60, 159}) {
    const auto once = moved_by(*mixer, x, token, 1), twice = moved_by(*mixer, x, token, 2);
    EXPECT_EQ(std::count(once.begin(), once.end(), true) == n, token < 8)
        << token;  // the first block alone reaches all at once
    EXPECT_EQ(std::count(twice.begin(), twice.end(), true), n) << token;
  }
}

TEST(SystemsP243, EveryRowSeesAsMuchSoCostIsLinear) {
  const int64_t d = 16;
  const auto pairs = [&](int64_t n) {
    const auto mixer = make_mixer(with({{"heads", 1}}), d);
    return pairs_computed(*mixer, n, d, 8 * n * d * d, 1);
  };
  const double ratio = pairs(32768) / pairs(8192);
  EXPECT_GE(ratio, 3.6);
  EXPECT_LE(ratio, 4.6);
}

TEST(SystemsP243, MemoryIsLinear) {
  const auto mixer = make_mixer(with({{"heads", 1}}), 16);
  const auto peak = [&](int64_t n) {
    const Tensor x = normal_rows(n, 16, 2);
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    run_alone(*mixer, x, nullptr, Pattern::bidirectional);
    return static_cast<double>(memory_counters().peak - base);
  };
  EXPECT_LE(peak(32768) / peak(8192), 4.4);
}

// A value is copied from anywhere: the first block hears of it and tells the token that asks, two layers in all.
// Windows of as many blocks do not reach.
TEST(SystemsP243, TrainedToCopyFromAnywhere) {
  const trained::Text text;
  const auto notes = [&](int64_t count, int64_t length, int64_t distance, Rng rng) {
    trained::Rows rows =
        trained::planted(text, count, {.length = length, .notes = 1, .distance = distance, .all = false}, rng);
    for (const Segment& s : rows.segments) rows.tokens[static_cast<size_t>(s.begin + s.length - 1)] = 0;  // the answer
    return rows;
  };
  double accuracy[2];
  for (const bool star : {false, true}) {
    const Json mixer =
        with({{"block", 16}, {"global", star ? 1 : 0}, {"window", star ? 3 : 5}, {"random", star ? 1 : 0}});
    trained::Trainee trainee({{"vocab", trained::kPlantedVocab},
                              {"d_model", 64},
                              {"pattern", "bidirectional"},
                              {"blocks", {{{"repeat", 2}, {"mixer", mixer}, {"channel", "mlp"}}}}},
                             {.steps = 400, .rate = 5e-3, .pattern = Pattern::bidirectional});
    trainee.train([&](int64_t step, Rng rng) { return step <= 150 ? notes(32, 64, 0, rng) : notes(8, 512, 0, rng); });
    accuracy[star] = trainee.accuracy(notes(200, 512, 0, Rng(9)));
    std::printf("%s: accuracy %.3f\n", json_text(mixer).c_str(), accuracy[star]);
  }
  EXPECT_GE(accuracy[1], 0.95);
  EXPECT_LE(accuracy[0], 0.6);
}

TEST(SystemsP243, HeadsDrawBlocksOfTheirOwnAndASeedDrawsThemAgain) {
  const Json options = {{"block", 4}, {"global", 1}, {"window", 1}, {"random", 2}, {"position", "none"}};
  const int64_t n = 200;
  const auto one = make_mixer(with(options), 16), same = make_mixer(with(options), 16);
  Json other_options = options;
  other_options["seed"] = 7;
  const auto other = make_mixer(with(other_options), 16);
  EXPECT_EQ(reads_of(*one, n, 16), reads_of(*same, n, 16));
  EXPECT_NE(reads_of(*one, n, 16), reads_of(*other, n, 16));
  NoGrad off;
  const auto m = one->implicit(Var(normal_rows(n, 16, 3)), Context{});
  bool apart = false;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      const auto seen = [&](int64_t h) { return m->weights.data()[(h * n + i) * n + j] != 0; };
      apart = apart || seen(0) != seen(1);
    }
  EXPECT_TRUE(apart);
}

TEST(SpeedP243, AnEighthOfDenseTimeAndLinear) {
  const int64_t n = 16384, d = 64;
  const auto dense = make_mixer({{"name", "softmax"}, {"heads", 1}}, d), sparse = make_mixer(with({{"heads", 1}}), d);
  const Tensor x = normal_rows(n, d, 2), longer = normal_rows(2 * n, d, 2), shorter = normal_rows(n / 2, d, 2);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x, nullptr, Pattern::bidirectional); },
      [&] { run_alone(*sparse, x, nullptr, Pattern::bidirectional); });
  std::printf("dense %.3f s, bigbird %.3f s\n", m.first, m.second);
  EXPECT_LE(m.second, m.first / 8);
  const Seconds growth = medians_in_turn(
      5, [&] { run_alone(*sparse, shorter); }, [&] { run_alone(*sparse, longer); });
  std::printf("8k %.3f s, 32k %.3f s\n", growth.first, growth.second);
  EXPECT_GE(growth.second / growth.first, 3.6);
  EXPECT_LE(growth.second / growth.first, 4.6);
}

}  // namespace sennit::systems_p243_test
