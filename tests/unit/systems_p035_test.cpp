// Mixed attention spans (Zhang et al., "MASFormer", arXiv:2310.12442): full attention in a few blocks, windows in the
// rest.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "measure/spans.h"
#include "model/model.h"
#include "sequence/attention.h"
#include "support/planted.h"
#include "support/timing.h"

namespace sennit::systems_p035_test {

Model mixed(int64_t window) {
  const std::string text = R"({"vocab": 64, "d_model": 64, "blocks": [
    {"repeat": 2, "mixer": "softmax"},
    {"repeat": 6, "mixer": "softmax", "window": )" +
                           std::to_string(window) + "}]}";
  return Model(read_model_spec(json_of(text), "mixed"), Rng(1));
}

TEST(SystemsP035, AWindowThatHoldsEverythingChangesNothing) {
  NoGrad off;
  const Context context;
  const Segment whole[] = {{0, 300, 0, nullptr}};
  const std::vector<int32_t> tokens(300, 7);
  Model full = mixed(0), wide = mixed(300), narrow = mixed(20);
  const Tensor a = full.hidden(tokens, {whole, &context}).value(), b = wide.hidden(tokens, {whole, &context}).value();
  EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())), 0);
  const Tensor c = narrow.hidden(tokens, {whole, &context}).value();
  EXPECT_NE(std::memcmp(a.raw(), c.raw(), static_cast<size_t>(a.bytes())), 0);
}

// The search takes the block that helps most, then the one that helps most beside it, until nothing is lost.
TEST(SystemsP035, FullBlocksArePlacedWhereTheyHelpMost) {
  const auto loss = [](const std::set<size_t>& full) {
    return 3.0 - (full.contains(4) ? 1.0 : 0) - (full.contains(1) && full.contains(4) ? 0.5 : 0) -
           (full.contains(2) ? 0.3 : 0);
  };
  const auto full_of = [&](size_t most, double goal) {
    std::vector<std::set<size_t>> all;
    for (const auto& p : measure::place_full_blocks({1, 2, 4}, most, goal, loss)) {
      EXPECT_EQ(p.loss, loss(p.full));
      all.push_back(p.full);
    }
    return all;
  };
  EXPECT_EQ(full_of(9, 0), (std::vector<std::set<size_t>>{{}, {4}, {1, 4}, {1, 2, 4}}));
  EXPECT_EQ(full_of(1, 0), (std::vector<std::set<size_t>>{{}, {4}}));
  EXPECT_EQ(full_of(9, 2.1), (std::vector<std::set<size_t>>{{}, {4}}));
}

TEST(SystemsP035, WindowsAreSetInTheOtherBlocks) {
  Model full = mixed(0);
  const std::vector<size_t> blocks = measure::full_blocks(full.spec());
  EXPECT_EQ(blocks.size(), 8u);
  EXPECT_EQ(measure::full_blocks(mixed(20).spec()), (std::vector<size_t>{0, 1}));
  Model narrow = mixed(20);
  const auto windowed = measure::with_windows(full, blocks, {0, 1}, 20);
  NoGrad off;
  const Context context;
  const Segment whole[] = {{0, 300, 0, nullptr}};
  std::vector<int32_t> tokens;
  for (int32_t t = 0; t < 300; ++t) tokens.push_back(t * 7 % 64);
  const Tensor a = narrow.hidden(tokens, {whole, &context}).value(),
               b = windowed->hidden(tokens, {whole, &context}).value();
  EXPECT_EQ(std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())), 0);
}

TEST(SystemsP035, WorkAndMemoryFollowTheSpans) {
  const int64_t n = 8192, window = 512;
  const AttentionSegment whole{0, n, 0, 0, n, 0};
  const double full = static_cast<double>(visible_pairs(whole, true, 0)),
               near = static_cast<double>(visible_pairs(whole, true, window));
  EXPECT_NEAR((2 * full + 6 * near) / (8 * full), 0.34, 0.0034);
  EXPECT_LE(static_cast<double>(mixed(window).state_bytes(n)), 0.35 * static_cast<double>(mixed(0).state_bytes(n)));
}

TEST(SpeedP035, PrefillOfAttentionIsFaster) {
  NoGrad off;
  const int64_t n = 8192, dim = 64;
  Tensor rows({n, dim});
  Rng rng(3);
  for (float& x : rows.span()) x = static_cast<float>(rng.normal());
  const Var x(rows);
  const AttentionSegment whole[] = {{0, n, 0, 0, n, 0}};
  const auto seconds = [&](int64_t window) {
    return seconds_of(3, [&] {
      attention(x, std::span(&x, 1), std::span(&x, 1), whole,
                {.heads = 1, .kv_heads = 1, .scale = 0.125f, .window = window});
    });
  };
  const double full = seconds(0), near = seconds(512);
  EXPECT_LE((2 * full + 6 * near) / (8 * full), 0.45) << full << " s full, " << near << " s window";
}

trained::Rows far_notes(const trained::Text& text, int64_t count, Rng rng) {
  return trained::planted(text, count, {.length = 1600, .notes = 1, .distance = 1500, .all = false}, rng);
}
std::unique_ptr<trained::Trainee> trained_to_recall(const trained::Text& text, const std::vector<int64_t>& full) {
  Json blocks = Json::array();
  for (int64_t b = 0; b < 3; ++b) {
    const bool windowed = std::find(full.begin(), full.end(), b) == full.end();
    blocks.push_back({{"mixer", "softmax"}, {"window", windowed ? 128 : 0}, {"channel", "mlp"}});
  }
  auto trainee =
      std::make_unique<trained::Trainee>(Json{{"vocab", trained::kPlantedVocab}, {"d_model", 64}, {"blocks", blocks}},
                                         trained::Settings{.steps = 240, .rate = 5e-3});
  trainee->train([&](int64_t step, Rng rng) {  // first near, then far
    return step <= 120 ? trained::planted(text, 32, {.length = 64, .notes = 1, .all = false}, rng)
                       : far_notes(text, 2, rng);
  });
  return trainee;
}

// A note 1500 tokens and more before it is asked for, with windows of 128: which of three blocks must see everything?
TEST(SystemsP035, TrainedToRecallFromFarAway) {
  const trained::Text text;
  const trained::Rows rows = far_notes(text, 100, Rng(9));
  const auto told = [&](const std::vector<int64_t>& full, trained::Trainee& trainee) {
    const double a = trainee.accuracy(rows);
    std::printf("trained with full attention in blocks [%s]: accuracy %.3f\n",
                fmt::format("{}", fmt::join(full, ", ")).c_str(), a);
    return a;
  };
  const auto whole = trained_to_recall(text, {0, 1, 2});
  const double all = told({0, 1, 2}, *whole), none = told({}, *trained_to_recall(text, {}));
  double best = 0;
  for (const int64_t b : {0, 1, 2}) best = std::max(best, told({b}, *trained_to_recall(text, {b})));
  EXPECT_GE(best, all - 0.03);
  EXPECT_GE(best, none + 0.3);

  const trained::Rows few = far_notes(text, 20, Rng(10));
  const double goal = whole->loss(few);
  const auto placements = measure::place_full_blocks({0, 1, 2}, 3, goal + 0.01, [&](const std::set<size_t>& full) {
    NoGrad off;
    const Context context;
    const auto cut = measure::with_windows(whole->model(), {0, 1, 2}, full, 128);
    return double{cut->loss(cut->hidden(few.tokens, {few.segments, &context}), few.targets, context).value().data()[0]};
  });
  for (const auto& p : placements)
    std::printf("the first one, cut to windows but in [%s]: loss %.3f, whole %.3f\n",
                fmt::format("{}", fmt::join(p.full, ", ")).c_str(), p.loss, goal);
  EXPECT_GT(placements.front().loss, goal + 1);
  EXPECT_LE(placements.back().loss, goal + 0.01);
}

}  // namespace sennit::systems_p035_test
