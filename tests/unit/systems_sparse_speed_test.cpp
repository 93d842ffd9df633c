// Every sparse mixer at n = 32768 with a tenth of the pairs of exact attention: at most a fifth of its time, in the
// same run.
#include <gtest/gtest.h>

#include "support/mixers.h"
#include "support/timing.h"

namespace sennit::systems_sparse_speed_test {

constexpr int64_t kTokens = 32768, kWidth = 64;

const Json& tenths() {
  static const Json all = json_of(R"([
    {"name": "sparse_transformer", "stride": 1655, "arrange": "merged"},
    {"name": "bigbird", "random": 20, "window": 7},
    {"name": "power_attention", "window": 22},
    {"name": "moba", "top": 27},
    {"name": "infllm_v2", "top": 27, "dense": 0},
    {"name": "seer_attention", "top": 27}])");
  return all;
}

std::unique_ptr<Mixer> one_head(Json part) {
  part["heads"] = 1;
  return make_mixer(part, kWidth);
}

// Operations on pairs of query and key, whatever chose them: those of a mixer less what it would cost with hardly a
// pair.
TEST(SystemsSparse, TheyReadATenth) {
  const double maps = 8.0 * kTokens * kWidth * kWidth, all = 4.0 * kWidth * kTokens * (kTokens + 1) / 2;
  for (const Json& part : tenths()) {
    Json few = part;
    if (part.contains("top")) few["top"] = 9, few["local"] = 1;
    const auto mixer = one_head(part);
    const auto cost = static_cast<double>(mixer->flops(kTokens));
    const double pairs = part.contains("top")
                             ? (cost - static_cast<double>(one_head(few)->flops(kTokens))) / all + 9.0 / 256
                             : (cost - maps) / all;
    EXPECT_NEAR(pairs, 0.1, 0.005) << json_text(part);
  }
}

class SpeedSparse : public testing::TestWithParam<size_t> {};

TEST_P(SpeedSparse, AFifthOfExactAttentionsTime) {
  const auto dense = one_head({{"name", "softmax"}}), sparse = one_head(tenths()[GetParam()]);
  const Tensor x = normal_rows(kTokens, kWidth, 2);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x); }, [&] { run_alone(*sparse, x); });
  std::printf("exact %.3f s, %s %.3f s: %.3f of it\n", m.first, tenths()[GetParam()]["name"].get<std::string>().c_str(),
              m.second, m.second / m.first);
  EXPECT_LE(m.second, m.first / 5);
}

INSTANTIATE_TEST_SUITE_P(All, SpeedSparse, testing::Range<size_t>(0, 6),
                         [](const auto& c) { return tenths()[c.param]["name"].template get<std::string>(); });

}  // namespace sennit::systems_sparse_speed_test
