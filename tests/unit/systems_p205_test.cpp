// Sparse Transformer (Child et al., arXiv:1904.10509): two patterns that reach everything in two steps.
#include <gtest/gtest.h>

#include "model/model.h"
#include "support/receptive.h"
#include "support/timing.h"

namespace sennit::systems_p205_test {

constexpr int64_t kWidth = 64;

Json with(const Json& options) {
  Json part = {{"name", "sparse_transformer"}};
  part.update(options);
  return part;
}

TEST(SystemsP205, AStrideOfTheWholeSequenceIsDenseAttention) {
  const int64_t n = 300;
  const Tensor x = normal_rows(n, kWidth, 2), dense = run_alone(*make_mixer("softmax", kWidth), x);
  for (const char* pattern : {"strided", "fixed"}) {
    const auto whole = make_mixer(with({{"pattern", pattern}, {"stride", n}, {"arrange", "merged"}}), kWidth);
    EXPECT_LE(most_apart(run_alone(*whole, x), dense), 1e-5) << pattern;
  }
}

TEST(SystemsP205, TwoStepsReachEverything) {
  const int64_t n = 1024;
  for (const char* pattern : {"strided", "fixed"}) {
    const auto mixer = make_mixer(
        with({{"pattern", pattern}, {"stride", 32}, {"summary", 4}, {"arrange", "merged"}, {"heads", 1}}), 16);
    const Reads once = reads_of(*mixer, n, 16);
    EXPECT_FALSE(reads_everything_before(once));
    EXPECT_TRUE(reads_everything_before(next_layer(once, once))) << pattern;
  }
}

// The two parts of the strided pattern one after the other, whichever comes first.
TEST(SystemsP205, OnePartAfterTheOtherReachesEverything) {
  const int64_t n = 1024;
  const auto part_of = [&](int64_t depth) {
    const auto mixer = mixers::registry().make(with({{"stride", 32}, {"arrange", "blocks"}, {"heads", 1}}),
                                               {.d_model = 16, .depth = depth}, Rng(1), "test");
    return reads_of(*mixer, n, 16);
  };
  const Reads near = part_of(0), far = part_of(1);
  EXPECT_EQ(near[n - 1].count(), 33u);
  EXPECT_EQ(far[n - 1].count(), 32u);
  EXPECT_TRUE(reads_everything_before(next_layer(near, far)));
  EXPECT_TRUE(reads_everything_before(next_layer(far, near)));
}

TEST(SystemsP205, FewScoresAreComputed) {
  const int64_t n = 16384, l = 128, d = 16;
  for (const char* arrange : {"merged", "heads"}) {
    const auto mixer = make_mixer(with({{"stride", l}, {"arrange", arrange}, {"heads", 2}}), d);
    const double pairs = pairs_computed(*mixer, n, d, 8 * n * d * d, 2);
    EXPECT_LE(pairs, static_cast<double>(2 * n * l + n)) << arrange;
    EXPECT_GE(pairs, static_cast<double>(n * l) / 2) << arrange;
  }
}

TEST(SystemsP205, RecomputedGradientsAreTheStoredOnesWithAThirdOfTheMemory) {
  const Json file = json_of(R"({"vocab": 64, "d_model": 32, "blocks": [
    {"repeat": 16, "mixer": {"name": "sparse_transformer", "stride": 16, "arrange": "blocks"}}]})");
  std::vector<int32_t> tokens(512), targets(512);
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(i * 7 % 64), targets[i] = static_cast<int32_t>(i * 5 % 64);
  const Segment whole[] = {{0, 512, 0, nullptr}};
  const Context context{.training = true};
  std::vector<std::vector<Tensor>> gradients;
  std::vector<double> peaks;
  for (const bool again : {false, true}) {
    Model model(read_model_spec(file, "deep"), Rng(1));
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    const Var loss = model.loss(model.hidden(tokens, {whole, &context}, again), targets, context);
    peaks.push_back(static_cast<double>(memory_counters().peak - base));
    backward(loss);
    gradients.emplace_back();
    model.parameters([&](const std::string&, Parameter& p) { gradients.back().push_back(p.var.grad()); });
  }
  EXPECT_LE(peaks[1], peaks[0] / 3) << peaks[0] << " bytes stored, " << peaks[1] << " recomputed";
  for (size_t i = 0; i < gradients[0].size(); ++i) EXPECT_LE(most_apart(gradients[1][i], gradients[0][i]), 1e-6) << i;
}

TEST(SpeedP205, AFifthOfDenseTime) {
  const int64_t n = 16384;
  const auto dense = make_mixer({{"name", "softmax"}, {"heads", 1}}, kWidth);
  const auto sparse = make_mixer(with({{"heads", 1}, {"stride", 128}, {"arrange", "merged"}}), kWidth);
  const Tensor x = normal_rows(n, kWidth, 2);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x); }, [&] { run_alone(*sparse, x); });
  std::printf("dense %.3f s, sparse %.3f s\n", m.first, m.second);
  EXPECT_LE(m.second, m.first / 5);
}

}  // namespace sennit::systems_p205_test
