// SampleAttention (Zhu et al., arXiv:2406.15486): a window and the columns that sampled queries find.
#include <gtest/gtest.h>

#include "decoding/generate.h"
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

// As a setting of softmax attention.
Json attention_with(const Json& prefill) {
  return {{"name", "softmax"}, {"heads", 4}, {"kv_heads", 2}, {"prefill", prefill}};
}
Json stripes_of(double mass) {
  return {{"name", "stripes"}, {"mass", mass}, {"sampled", 0.1}, {"window", 0.05}, {"from", 300}};
}

TEST(SystemsP260, AMixerReadsItsPromptsByStripes) {
  const int64_t n = 500, d = 32;
  auto dense = make_mixer(attention_with("none"), d), all = make_mixer(attention_with(stripes_of(1)), d),
       some = make_mixer(attention_with(stripes_of(0.5)), d);
  const Tensor x = normal_rows(n, d, 2), want = run_alone(*dense, x), got = run_alone(*some, x);
  EXPECT_LE(most_apart(run_alone(*all, x), want), 1e-5);
  EXPECT_GT(most_apart(got, want), 1e-4);

  // What it says is what the operation says of its queries, keys and values.
  NoGrad off;
  const Context c;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Prompt p = planted_stripes::prompt_of(*some, x, 4, 2);
  const Stripes stripes =
      sampled_stripes(p.q, p.k, p.segment(), p.options(), {.window = 0.05, .sampled = 0.1, .mass = 0.5});
  EXPECT_LE(most_apart(some->output(Var(x), Var(p.sparse(striped(stripes))), c).value(), got), 1e-5);

  // Short prompts, later pieces, exact bits and gradients are those of everything.
  const Tensor few = x.slice(0, 299).clone();
  EXPECT_EQ(most_apart(run_alone(*some, few), run_alone(*dense, few)), 0);
  SequenceState a, b;
  run_alone(*some, few, &a), run_alone(*dense, few, &b);
  const Tensor rest = x.slice(299, 201).clone();
  EXPECT_EQ(most_apart(run_alone(*some, rest, &a), run_alone(*dense, rest, &b)), 0);
  const Context exact{.exact = true};
  EXPECT_EQ(most_apart(some->forward(Var(x), {whole, &exact}).value(), dense->forward(Var(x), {whole, &exact}).value()),
            0);
  Recording on(true);
  EXPECT_EQ(most_apart(some->forward(Var::leaf(x.clone()), {whole, &c}).value(), want), 0);
}

// Several sequences in one batch, of which one is long enough; keys kept in fewer bits.
TEST(SystemsP260, ABatchIsReadSequenceBySequence) {
  NoGrad off;
  const int64_t d = 32;
  auto some = make_mixer(attention_with(stripes_of(0.5)), d);
  const Tensor x = normal_rows(700, d, 3);
  const Context c;
  const Segment three[] = {{0, 150, 0, nullptr}, {150, 400, 0, nullptr}, {550, 150, 0, nullptr}};
  const Tensor y = some->forward(Var(x), {three, &c}).value();
  for (const Segment& s : three)
    EXPECT_LE(most_apart(y.slice(s.begin, s.length), run_alone(*some, x.slice(s.begin, s.length).clone())), 1e-6);
  auto dense = make_mixer(attention_with("none"), d), all = make_mixer(attention_with(stripes_of(1)), d);
  const auto rounded = [&](Mixer& mixer) {
    SequenceState halves(CacheFormat::bf16);
    return run_alone(mixer, x, &halves);
  };
  const Tensor want = rounded(*dense);
  EXPECT_LE(most_apart(rounded(*all), want), 1e-5);
  EXPECT_GT(most_apart(rounded(*some), want), 1e-4);
}

TEST(SystemsP260, AModelReadsItsPromptInOnePiece) {
  Json file = {{"vocab", 50}, {"d_model", 32}, {"blocks", {attention_with(stripes_of(0.5))}}};
  file["blocks"][0]["mixer"] = "softmax", file["blocks"][0].erase("name");
  Model model(read_model_spec(file, "test"), Rng(1));
  EXPECT_TRUE(model.wants_whole_prompts());
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 900; ++i) tokens.push_back(i * i % 50);
  Session whole(model, Context{}), cut(model, Context{});
  const Tensor a = Tensor::of({1, 50}, whole.feed(tokens)), b = Tensor::of({1, 50}, cut.feed(tokens, 290));
  SequenceState state;
  const Context c;
  const Segment segment[] = {{0, 900, 0, &state}};
  NoGrad off;
  const Tensor h = model.logits(model.hidden(tokens, {segment, &c}), c).value().slice(899, 1);
  EXPECT_EQ(most_apart(a, h), 0);
  EXPECT_GT(most_apart(b, h), 0);  // too short for stripes each
}

TEST(SystemsP260, RefusesWhatItCannotChooseFor) {
  const auto refused = [](Json options) {
    options["name"] = "softmax";
    EXPECT_THROW(make_mixer(options, 32), Error) << options;
  };
  refused({{"prefill", "strips"}});
  refused({{"prefill", {{"name", "stripes"}, {"block", 3}}}});
  refused({{"prefill", {{"name", "stripes"}, {"mass", 1.5}}}});
  for (const Json& other : {Json{{"window", 9}}, Json{{"score", "sigmoid"}}, Json{{"position", "alibi"}}}) {
    Json options = other;
    options["prefill"] = "stripes";
    refused(options);
  }
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
