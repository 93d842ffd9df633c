// Mixed attention spans (Zhang et al., "MASFormer", arXiv:2310.12442): full attention in a few blocks, windows in the
// rest.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

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

// A note 1400 tokens and more before it is asked for, with windows of 128: which of three blocks must see everything?
TEST(SystemsP035, TrainedToRecallFromFarAway) {
  const trained::Text text;
  const auto accuracy = [&](const std::vector<int64_t>& full) {
    Json blocks = Json::array();
    for (int64_t b = 0; b < 3; ++b)
      blocks.push_back({{"mixer", "softmax"},
                        {"window", std::find(full.begin(), full.end(), b) == full.end() ? 128 : 0},
                        {"channel", "mlp"}});
    trained::Trainee trainee({{"vocab", trained::kPlantedVocab}, {"d_model", 64}, {"blocks", blocks}},
                             {.steps = 240, .rate = 5e-3});
    trainee.train([&](int64_t step, Rng rng) {  // first near, then far
      return step <= 120 ? trained::planted(text, 32, {.length = 64, .notes = 1, .all = false}, rng)
                         : trained::planted(text, 2, {.length = 1536, .notes = 1, .distance = 1400, .all = false}, rng);
    });
    return trainee.accuracy(
        trained::planted(text, 100, {.length = 1536, .notes = 1, .distance = 1400, .all = false}, Rng(9)));
  };
  const auto told = [&](const std::vector<int64_t>& full) {
    const double a = accuracy(full);
    std::printf("full attention in %s: accuracy %.3f\n",
                full.empty() ? "no block" : fmt::format("{}", fmt::join(full, ", ")).c_str(), a);
    return a;
  };
  const double all = told({0, 1, 2}), none = told({});
  double best = 0;
  for (const int64_t b : {0, 1, 2}) best = std::max(best, told({b}));
  EXPECT_GE(best, all - 0.03);
  EXPECT_GE(best, none + 0.3);
}

}  // namespace sennit::systems_p035_test
