// PBS-Attn (Wang et al., arXiv:2510.21270): keys sorted within segments, so that heavy ones fill few blocks.
#include <gtest/gtest.h>

#include "sequence/permuted_blocks.h"
#include "support/stripes.h"
#include "support/timing.h"

namespace sennit::systems_p225_test {

using planted_stripes::Prompt;

PermutedBlocks chosen(const Prompt& p, const PermutedBlockSettings& settings) {
  return PermutedBlocks(p.q, p.k, p.segment(), p.options(), settings);
}

TEST(SystemsP225, AllBlocksOfAnyOrderAreDenseAttention) {
  NoGrad off;
  for (const int64_t n : {1, 63, 700, 1337})
    for (const bool sorted : {false, true})
      for (const int64_t segment : {64, 192}) {
        const Prompt p = planted_stripes::random_prompt(n, 4, 2, 16);
        const PermutedBlocks blocks = chosen(p, {.block = 32, .segment = segment, .mass = 1, .sorted = sorted});
        EXPECT_EQ(blocks.kept(), 1);
        EXPECT_LE(most_apart(p.sparse(blocks.tiles()), p.dense()), 1e-5) << n << " keys in segments of " << segment;
      }
}

// Any order within segments, drawn at random.
TEST(SystemsP225, RandomOrdersChangeNothing) {
  NoGrad off;
  const int64_t n = 1000, block = 32, segment = 128;
  const Prompt p = planted_stripes::random_prompt(n, 1, 1, 16);
  for (const uint64_t seed : {1, 2, 3}) {
    Rng rng(seed);
    std::vector<int32_t> order;
    for (int32_t j = 0; j < n; ++j) order.push_back(j);
    for (int64_t i = n - 1; i > 0; --i)
      std::swap(order[static_cast<size_t>(i)],
                order[static_cast<size_t>(i / segment * segment + rng.below(i % segment + 1))]);
    const auto source = [=](size_t, int64_t, TileList& tiles) {
      for (int64_t b = 0; b < n; b += block) {
        std::vector<int32_t> keys(order.begin() + b, order.begin() + std::min(n, b + block));
        std::sort(keys.begin(), keys.end());
        tiles.add(keys, Places{b / segment * segment, n}, 0);  // the mask of true places within its own segment
      }
    };
    EXPECT_LE(most_apart(p.sparse(source), p.dense()), 1e-5) << seed;
  }
}

TEST(SystemsP225, SortingPutsHeavyKeysTogetherWithinTheirSegment) {
  const auto planted = planted_stripes::planted_prompt(1000, {3, 70, 140, 260, 300, 900}, 0, 14);
  const auto blocks = chosen(planted.prompt, {.block = 16, .segment = 250 / 16 * 16});
  std::vector<int32_t> sorted = blocks.order(0);
  for (size_t i = 0; i < sorted.size(); ++i) EXPECT_EQ(sorted[i] / 240, static_cast<int32_t>(i) / 240);
  for (const int32_t j : {3, 70, 140}) EXPECT_LT(std::find(sorted.begin(), sorted.end(), j) - sorted.begin(), 16) << j;
  std::sort(sorted.begin(), sorted.end());
  for (int32_t j = 0; j < 1000; ++j) ASSERT_EQ(sorted[static_cast<size_t>(j)], j);
}

std::vector<int32_t> one_a_block(int64_t n, int64_t block) {
  std::vector<int32_t> heavy;
  Rng rng(5);
  for (int64_t b = 0; b < n; b += block) heavy.push_back(static_cast<int32_t>(b + rng.below(block)));
  return heavy;
}

TEST(SystemsP225, ScatteredHeavyKeysTakeHalfTheBlocksAtMost) {
  NoGrad off;
  const int64_t n = 8192;
  const Prompt p = planted_stripes::planted_prompt(n, one_a_block(n, 64), 0, 28).prompt;
  const PermutedBlocks permuted = chosen(p, {}), plain = chosen(p, {.sorted = false});
  const double error = planted_stripes::relative_error(p.sparse(permuted.tiles()), p.dense());
  std::printf("blocks kept: sorted %.4f, as they are %.4f; error %.4f\n", permuted.kept(), plain.kept(), error);
  EXPECT_LE(permuted.kept(), 0.5 * plain.kept());
  EXPECT_LE(error, 5e-2);

  const Prompt random = planted_stripes::random_prompt(n, 1, 1, 64);
  std::printf("random keys: sorted %.4f, as they are %.4f\n", chosen(random, {}).kept(),
              chosen(random, {.sorted = false}).kept());
}

TEST(SystemsP225, AlwaysSeesTheFirstTokenAndItsOwnSegment) {
  NoGrad off;
  const int64_t n = 600;
  Prompt p = planted_stripes::random_prompt(n, 1, 1, 16);
  for (int64_t j = 0; j < n; ++j) p.v.data()[j * 16] = 0;
  p.v.data()[0] = 1;  // the weight of the first token, in the first column
  const Tensor y = p.sparse(chosen(p, {.block = 16, .segment = 64, .mass = 1e-6}).tiles());
  for (int64_t i = 0; i < n; ++i) ASSERT_GT(y.data()[i * 16], 0) << i;
  for (int64_t j = 0; j < n; ++j) p.v.data()[j * 16] = static_cast<float>(j >= 512 && j < 576);
  const Tensor own = p.sparse(chosen(p, {.block = 16, .segment = 64, .mass = 1e-6}).tiles());
  for (int64_t i = 512; i < 576; ++i) ASSERT_GT(own.data()[i * 16], 0) << i;
}

TEST(SystemsP225, RefusesBlocksThatDoNotFit) {
  const Prompt p = planted_stripes::random_prompt(10, 1, 1, 4);
  EXPECT_THROW(chosen(p, {.block = 48, .segment = 64}), Error);
  EXPECT_THROW(chosen(p, {.block = 0}), Error);
  EXPECT_THROW(chosen(p, {.mass = 0}), Error);
}

// As a setting of softmax attention.
TEST(SystemsP225, AMixerReadsItsPromptsByPermutedBlocks) {
  NoGrad off;
  const int64_t n = 500, d = 32;
  const auto with = [&](double mass) {
    const Json prefill = {{"name", "permuted_blocks"}, {"mass", mass}, {"block", 16}, {"segment", 64}, {"from", 300}};
    return make_mixer({{"name", "softmax"}, {"heads", 4}, {"kv_heads", 2}, {"prefill", prefill}}, d);
  };
  auto dense = make_mixer({{"name", "softmax"}, {"heads", 4}, {"kv_heads", 2}}, d), all = with(1), some = with(0.5);
  const Tensor x = normal_rows(n, d, 2), want = run_alone(*dense, x), got = run_alone(*some, x);
  EXPECT_LE(most_apart(run_alone(*all, x), want), 1e-5);
  EXPECT_GT(most_apart(got, want), 1e-4);
  const Prompt p = planted_stripes::prompt_of(*some, x, 4, 2);
  const Tensor core = p.sparse(chosen(p, {.block = 16, .segment = 64, .mass = 0.5}).tiles());
  EXPECT_LE(most_apart(some->output(Var(x), Var(core), Context{}).value(), got), 1e-5);
  const Json unfit = {{"name", "permuted_blocks"}, {"block", 48}, {"segment", 64}};
  EXPECT_THROW(make_mixer({{"name", "softmax"}, {"prefill", unfit}}, d), Error);
}

TEST(SpeedP225, SortingAndChoosingPayWhereHeavyKeysAreScattered) {
  NoGrad off;
  const int64_t n = 16384;
  const Prompt p = planted_stripes::planted_prompt(n, one_a_block(n, 64), 0, 28).prompt;
  Tensor out;
  const Seconds m = medians_in_turn(
      5, [&] { out = p.dense(); }, [&] { out = p.sparse(chosen(p, {}).tiles()); });
  const PermutedBlocks blocks = chosen(p, {});
  const double error = planted_stripes::relative_error(p.sparse(blocks.tiles()), p.dense());
  std::printf("kept %.4f, error %.4f; dense %.3f s, permuted %.3f s (%.2f)\n", blocks.kept(), error, m.first, m.second,
              m.second / m.first);
  EXPECT_LE(error, 5e-2);
  EXPECT_LE(m.second, 0.6 * m.first);
}

}  // namespace sennit::systems_p225_test
