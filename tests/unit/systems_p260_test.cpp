// SampleAttention (Zhu et al., arXiv:2406.15486): a window and the columns that sampled queries find.
#include <gtest/gtest.h>

#include "sequence/stripes.h"
#include "support/stripes.h"
#include "support/timing.h"

namespace sennit::systems_p260_test {

using planted_stripes::Prompt;

TEST(SystemsP260, KeepingAllWeightIsDenseAttention) {
  NoGrad off;
  for (const int64_t kv_heads : {4, 2}) {
    const Prompt p = planted_stripes::random_prompt(700, 4, kv_heads, 16);
    const Stripes all = sampled_stripes(p.q, p.k, p.segment(), p.options(), {.mass = 1});
    EXPECT_EQ(all.density(p.segment()), 1);
    EXPECT_LE(most_apart(p.sparse(striped(all)), p.dense()), 1e-5);
  }
}

// Against loops in double: what is chosen is what gets computed, and the error is no more than what was left out
// allows.
TEST(SystemsP260, TheErrorIsBoundedByTheWeightThatWasLeftOut) {
  NoGrad off;
  const int64_t n = 400;
  for (const double mass : {0.3, 0.6, 0.9})
    for (const double sharpness : {1.0, 4.0}) {
      const Prompt p = planted_stripes::random_prompt(n, 2, 1, 16, sharpness);
      const Stripes stripes =
          sampled_stripes(p.q, p.k, p.segment(), p.options(), {.window = 0.05, .sampled = 0.1, .mass = mass});
      const Tensor fast = p.sparse(striped(stripes)), mass_kept = p.kept_mass(striped(stripes));
      double most_off = 0, size = 0, tightest = 0;
      for (int64_t h = 0; h < 2; ++h)
        for (int64_t i = 0; i < n; ++i) {
          std::vector<double> score = p.scores(h, i), dense(16), sparse(16);
          double total = 0, kept = 0, largest = 0;
          for (int64_t j = 0; j <= i; ++j) {
            const auto& columns = stripes.columns[static_cast<size_t>(h)];
            const bool seen = i - j < stripes.window || std::binary_search(columns.begin(), columns.end(), j);
            const double e = std::exp(score[static_cast<size_t>(j)]);
            total += e, kept += seen ? e : 0;
            for (int64_t c = 0; c < 16; ++c) {
              const double v = p.v.data()[j * 16 + c];
              dense[static_cast<size_t>(c)] += e * v, sparse[static_cast<size_t>(c)] += seen ? e * v : 0;
              largest = std::fmax(largest, std::fabs(v));
            }
          }
          ASSERT_NEAR(mass_kept.data()[h * n + i], kept / total, 1e-5) << h << ", " << i;
          const double bound = 2 * (1 - kept / total) * largest;
          for (int64_t c = 0; c < 16; ++c) {
            const double d = dense[static_cast<size_t>(c)] / total, s = sparse[static_cast<size_t>(c)] / kept;
            ASSERT_LE(std::fabs(s - d), bound + 1e-13) << h << ", " << i;
            most_off = std::fmax(most_off, std::fabs(fast.data()[i * 32 + h * 16 + c] - s));
            size = std::fmax(size, std::fabs(s));
            if (bound > 1e-9) tightest = std::fmax(tightest, std::fabs(s - d) / bound);
          }
        }
      EXPECT_LE(most_off, 1e-5 * size);
      std::printf("mass %.1f: at most %.2f of the bound\n", mass, tightest);
    }
}

TEST(SystemsP260, RandomLogitsAreKeptNearlyWhole) {
  NoGrad off;
  const Prompt p = planted_stripes::random_prompt(4096, 2, 2, 32);
  const Stripes stripes = sampled_stripes(p.q, p.k, p.segment(), p.options(), {});
  const Tensor mass = p.kept_mass(striped(stripes));
  double least = 1, mean = 0;
  for (const float m : mass.span()) least = std::fmin(least, m), mean += m / static_cast<double>(mass.elements());
  const double apart = planted_stripes::relative_error(p.sparse(striped(stripes)), p.dense());
  std::printf("random logits: %.3f of all pairs, weight kept %.3f at least, %.3f on average, error %.3f\n",
              stripes.density(p.segment()), least, mean, apart);
  EXPECT_GE(stripes.density(p.segment()), 0.85);
  EXPECT_GE(mean, 0.94);
}

TEST(SystemsP260, RefusesPartsThatAreNone) {
  const Prompt p = planted_stripes::random_prompt(10, 1, 1, 4);
  for (const StripeSettings& s : {StripeSettings{.window = 0}, {.sampled = 1.5}, {.mass = -1}})
    EXPECT_THROW(sampled_stripes(p.q, p.k, p.segment(), p.options(), s), Error);
}

TEST(SpeedP260, PlantedStripesAreFoundInHalfTheTimeOfDense) {
  NoGrad off;
  const int64_t n = 16384;
  const auto planted = planted_stripes::striped_prompt(n, 16, 64);
  const Prompt& p = planted.prompt;
  const auto sample = [&] { return sampled_stripes(p.q, p.k, p.segment(), p.options(), {.mass = 0.99}); };
  const Stripes stripes = sample();
  for (const int32_t j : planted.heavy)
    EXPECT_TRUE(std::binary_search(stripes.columns[0].begin(), stripes.columns[0].end(), j)) << j;
  const Tensor mass = p.kept_mass(striped(stripes));
  const double least = *std::min_element(mass.span().begin(), mass.span().end()),
               error = planted_stripes::relative_error(p.sparse(striped(stripes)), p.dense());
  Tensor out;
  const Seconds m = medians_in_turn(
      5, [&] { out = p.dense(); }, [&] { out = p.sparse(striped(sample())); });
  std::printf("%zu columns, density %.3f, weight kept %.4f at least, error %.4f; dense %.3f s, sampled %.3f s (%.2f)\n",
              stripes.columns[0].size(), stripes.density(p.segment()), least, error, m.first, m.second,
              m.second / m.first);
  EXPECT_GE(least, 0.95);
  EXPECT_LE(error, 3e-2);
  EXPECT_LE(stripes.density(p.segment()), 0.10);
  EXPECT_LE(m.second, 0.5 * m.first);
}

}  // namespace sennit::systems_p260_test
