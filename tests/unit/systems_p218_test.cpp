// PowerAttention (Chen et al., arXiv:2503.03588): L layers reach 2^L blocks.
#include <gtest/gtest.h>

#include "model/model.h"
#include "ops/layout.h"
#include "support/planted.h"
#include "support/receptive.h"
#include "support/timing.h"

namespace sennit::systems_p218_test {

Json with(const Json& options) {
  Json part = {{"name", "power_attention"}};
  part.update(options);
  return part;
}

TEST(SystemsP218, LayersReachTwiceAsFarEach) {
  const int64_t blocks = 256, window = 1;
  const auto power =
      make_mixer(with({{"heads", 1}, {"block", 1}, {"window", window}, {"sink", 0}, {"position", "none"}}), 8);
  const Reads layer = reads_of(*power, blocks, 8);
  // A sliding window of as many blocks as a row of it sees at most: itself and 8 powers of two.
  const int64_t width = 9;
  const auto near = make_mixer({{"name", "softmax"}, {"heads", 1}, {"window", width}, {"position", "none"}}, 8);
  const Reads near_layer = reads_of(*near, blocks, 8);
  Reads reached = layer, near_reached = near_layer;
  for (int64_t layers = 1; layers <= 8; ++layers) {
    for (int64_t i = 0; i < blocks; ++i)
      for (int64_t j = std::max<int64_t>(0, i - (int64_t{1} << layers) + 1); j <= i; ++j)
        ASSERT_TRUE(reached[i].test(j)) << layers << " layers, from " << i << " to " << j;
    EXPECT_EQ(near_reached[blocks - 1].count(), std::min<int64_t>(blocks, layers * (width - 1) + 1));
    reached = next_layer(reached, layer);
    near_reached = next_layer(near_reached, near_layer);
  }
}

TEST(SystemsP218, AWindowOfEverythingIsDenseAttention) {
  const int64_t n = 333;
  const Tensor x = normal_rows(n, 32, 2);
  const auto dense = make_mixer("softmax", 32), all = make_mixer(with({{"block", 16}, {"window", 21}}), 32);
  EXPECT_LE(most_apart(run_alone(*all, x), run_alone(*dense, x)), 1e-5);
  const auto whole_blocks = make_mixer(with({{"block", 64}, {"window", 6}}), 32);
  EXPECT_EQ(most_apart(run_alone(*whole_blocks, x), run_alone(*dense, x)), 0);
}

TEST(SystemsP218, ARowSeesFewBlocks) {
  const int64_t n = 1024, block = 4, window = 3;
  const auto mixer = make_mixer(with({{"heads", 1}, {"block", block}, {"window", window}}), 8);
  const Reads reads = reads_of(*mixer, n, 8);
  const auto most = static_cast<size_t>(block * (window + 1 + 8));  // log2 of 256 blocks
  for (int64_t i = 0; i < n; ++i) ASSERT_LE(reads[i].count(), most) << i;
}

// Six layers over 64 blocks: every token moves the last one; a window of as many blocks leaves the far ones out.
TEST(SystemsP218, EveryTokenReachesTheLast) {
  const int64_t block = 4, n = 64 * block, d = 16;
  const auto gradient = [&](const std::string& mixer) {
    const Json file =
        json_of(R"({"vocab": 8, "d_model": 16, "blocks": [{"repeat": 6, "channel": "none", "mixer": )" + mixer + "}]}");
    Model model(read_model_spec(file, "deep"), Rng(1));
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Context context;
    const Var x = Var::leaf(normal_rows(n, d, 4));
    Var y = x;
    for (size_t i = 0; i < model.blocks().size(); ++i) y = model.blocks()[i]->forward(y, Batch{whole, &context}.at(i));
    backward(rows(y, n - 1, 1), normal_rows(1, d, 5));
    std::vector<double> sizes(n, 0.0);
    for (int64_t t = 0; t < n; ++t)
      for (int64_t c = 0; c < d; ++c) sizes[t] += std::fabs(x.grad().data()[t * d + c]);
    return sizes;
  };
  const auto power = gradient(R"({"name": "power_attention", "block": 4, "window": 1, "sink": 0, "heads": 1})");
  for (int64_t t = 0; t < n; ++t) EXPECT_GT(power[t], 0) << t;
  const int64_t window = 6 * block;
  const auto near = gradient(R"({"name": "softmax", "heads": 1, "window": 24})");
  for (int64_t t = 0; t < n - 1 - 6 * (window - 1); ++t) EXPECT_EQ(near[t], 0) << t;
}

// Whether a note is found again, by how far back it stands: told for three layers of each, not asked for.
TEST(SystemsP218, TrainedPasskeys) {
  const trained::Text text;
  const std::vector<int64_t> distances = {32, 128, 256, 448};
  const auto planting = [](int64_t length, int64_t distance) {
    return trained::Planting{.length = length, .notes = 1, .distance = distance, .all = false};
  };
  std::printf("%-42s", "passkeys found, at least so far back:");
  for (const int64_t d : distances) std::printf("%6ld", d);
  for (const Json& mixer : {Json{{"name", "softmax"}}, with({{"block", 16}, {"window", 2}}),
                            Json{{"name", "softmax"}, {"window", 16 * 8}}}) {
    trained::Trainee trainee(
        {{"vocab", trained::kPlantedVocab}, {"d_model", 64}, {"blocks", {{{"repeat", 3}, {"mixer", mixer}}}}},
        {.steps = 300, .rate = 5e-3});
    trainee.train([&](int64_t step, Rng rng) {
      return step <= 100 ? trained::planted(text, 32, planting(64, 0), rng)
                         : trained::planted(text, 8, planting(512, 0), rng);
    });
    std::printf("\n%-42s", json_text(mixer).c_str());
    for (const int64_t d : distances) {
      const double found = trainee.accuracy(trained::planted(text, 64, planting(d + 64, d), Rng(9)));
      std::printf("%6.2f", found);
      EXPECT_TRUE(found >= 0 && found <= 1);
    }
  }
  std::printf("\n");
}

TEST(SpeedP218, ASixthOfDenseTimeAndCloseToAWindow) {
  const int64_t n = 32768, d = 64;
  const Tensor x = normal_rows(n, d, 2);
  const auto dense = make_mixer({{"name", "softmax"}, {"heads", 1}}, d), power = make_mixer(with({{"heads", 1}}), d);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x); }, [&] { run_alone(*power, x); });
  std::printf("dense %.3f s, power %.3f s\n", m.first, m.second);
  EXPECT_LE(m.second, m.first / 6);
  // As many blocks as the longest row sees: sink, window of 2, and 9 powers of which one is in the window.
  const auto near = make_mixer({{"name", "softmax"}, {"heads", 1}, {"window", 11 * 64}}, d);
  const Seconds w = medians_in_turn(
      7, [&] { run_alone(*near, x); }, [&] { run_alone(*power, x); });
  std::printf("window %.3f s, power %.3f s\n", w.first, w.second);
  EXPECT_LE(w.second, 1.3 * w.first);
}

}  // namespace sennit::systems_p218_test
