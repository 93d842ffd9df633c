#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/utf8.h"
#include "decoding/generate.h"
#include "state/state_file.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::generation_test {

const tokenizers::Tokenizer& bytes() {
  static const auto t = tokenizers::bytes_tokenizer();
  return *t;
}

struct Answer {
  std::string text;
  std::vector<std::string> parts;
  std::vector<int32_t> tokens;  // chosen
  GenerationReport report;
};

Answer answer(Session& session, const GenerationOptions& options, std::vector<int32_t>& history,
              const std::vector<int32_t>& prompt, int cancel_after = 1 << 30) {
  Answer a;
  const size_t before = history.size() + prompt.size();
  a.report = generate(session, bytes(), prompt, options, history, [&](std::string_view part) {
    a.parts.emplace_back(part);
    a.text += part;
    return std::ssize(a.parts) < cancel_after;
  });
  a.tokens.assign(history.begin() + static_cast<int64_t>(before), history.end());
  return a;
}
Answer answer(Model& model, const GenerationOptions& options, int cancel_after = 1 << 30) {
  Session session(model, {});
  std::vector<int32_t> history;
  return answer(session, options, history, some_tokens(20, 256), cancel_after);
}

TEST(Generation, ModelsThatSeeWhatComesLaterAreRefusedBeforeTheyRead) {
  const auto begin = [](const Json& file) {
    Model model(read_model_spec(file, "test"), Rng(1), "test");
    Session session(model, {});
  };
  const auto refusal = [&](const Json& file) { return error_of([&] { begin(file); }); };
  const Json ahead{{"mixer", "vim"}}, back{{"mixer", "gla"}};
  EXPECT_NO_THROW(begin({{"vocab", 257}, {"d_model", 16}, {"blocks", {back}}}));
  EXPECT_NE(refusal({{"vocab", 257}, {"d_model", 16}, {"blocks", {back, ahead}}}).find("vim: expected a causal mixer"),
            std::string::npos);
  EXPECT_NE(refusal({{"vocab", 257}, {"d_model", 16}, {"pattern", "bidirectional"}, {"blocks", {ahead}}})
                .find("reads both ways"),
            std::string::npos);
}

TEST(Generation, GreedyTakesTheHighestLogit) {
  Model model = hybrid(1, 257);
  const Answer a = answer(model, {.sampling = {.temperature = 0}, .max_tokens = 40});
  ASSERT_EQ(a.report.tokens, 40);
  EXPECT_EQ(a.report.reason, StopReason::max_tokens);
  Session session(model, {});
  auto logits = session.feed(some_tokens(20, 256));
  for (const int32_t token : a.tokens) {
    ASSERT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin());
    logits = session.feed({&token, 1});
  }
}

TEST(Generation, TheSeedDecides) {
  Model model = hybrid(1, 257);
  const auto with_seed = [&](int64_t seed) {
    return answer(model, {.sampling = {.temperature = 1, .seed = seed}, .max_tokens = 40}).tokens;
  };
  EXPECT_EQ(with_seed(3), with_seed(3));
  EXPECT_NE(with_seed(3), with_seed(4));
}

// Text with each broken run shown as one replacement character.
std::string mended(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Start start = utf8_start(text);
    out += start.kind == Utf8Start::whole ? text.substr(0, start.length) : kReplacementCharacter;
    text.remove_prefix(start.length);
  }
  return out;
}

TEST(Generation, WholeCharactersOnlyAndNothingLost) {
  Model model = hybrid(1, 257);
  for (int64_t seed = 0; seed < 20; ++seed) {
    const Answer a = answer(model, {.sampling = {.temperature = 2, .seed = seed}, .max_tokens = 100});
    for (const std::string& part : a.parts) EXPECT_TRUE(is_utf8(part));
    EXPECT_EQ(a.text, mended(bytes().decode(a.tokens))) << "seed " << seed;
  }
}

// A model over bytes that says one text over and over: every bigram of it has the highest logit.
Model parrot(const std::string& text) {
  ModelSpec spec = read_model_spec(
      Json{{"vocab", 257},
           {"d_model", 257},
           {"tie_embeddings", false},
           {"norm", "rmsnorm"},
           {"blocks", {{{"mixer", {{"name", "softmax"}, {"heads", 1}, {"position", "none"}}}, {"channel", "none"}}}}},
      "parrot");
  Model model(spec, Rng(1), "parrot");
  model.parameters([&](const std::string& name, Parameter& p) {
    if (name == "norm.weight") return;
    p.var.value().fill(0);
    ++p.version;
    if (name == "embedding.weight")
      for (int64_t i = 0; i < 257; ++i) p.var.value().data()[i * 257 + i] = 1;
    if (name != "head.weight") return;
    for (size_t i = 0; i < text.size(); ++i) {
      const auto from = static_cast<unsigned char>(text[i]),
                 to = static_cast<unsigned char>(text[(i + 1) % text.size()]);
      p.var.value().data()[to * 257 + from] = 5;
    }
  });
  return model;
}

Answer parroted(const std::string& text, const std::vector<std::string>& stop, int64_t most = 60) {
  Model model = parrot(text);
  Session session(model, {});
  std::vector<int32_t> history;
  return answer(session, {.sampling = {.temperature = 0}, .max_tokens = most, .stop = stop}, history,
                {static_cast<unsigned char>(text.back())});
}

TEST(Generation, StopTextsSplitOverTokens) {
  const std::string text = "abcdefgh";
  EXPECT_EQ(parroted(text, {}).text.substr(0, 10), "abcdefghab");
  for (const auto& [stop, shown] : std::map<std::vector<std::string>, std::string>{{{"def"}, "abc"},
                                                                                   {{"a"}, ""},
                                                                                   {{"hab"}, "abcdefg"},
                                                                                   {{"efx", "fgh"}, "abcde"},
                                                                                   {{"cdefz", "de"}, "abc"},
                                                                                   {{"", "h"}, "abcdefg"}}) {
    const Answer a = parroted(text, stop);
    EXPECT_EQ(a.text, shown) << stop[0];
    EXPECT_EQ(a.report.reason, StopReason::stop_text);
  }
  // What might have become a stop text is shown when it did not.
  EXPECT_EQ(parroted(text, {"fghX"}, 8).text, "abcdefgh");
  EXPECT_EQ(parroted(text, {"fghab"}, 8).text, "abcdefgh");
}

TEST(Generation, CharactersOfSeveralBytesAreHeldUntilWhole) {
  const std::string text = "\xf0\x9f\x90\x88";  // one cat, four tokens
  const Answer whole = parroted(text, {}, 8);
  EXPECT_EQ(whole.parts, (std::vector<std::string>{text, text}));
  const Answer cut = parroted(text, {}, 6);
  EXPECT_EQ(cut.text, text + std::string(kReplacementCharacter));
}

TEST(Generation, StopTokensAreNotPartOfTheAnswer) {
  Model model = parrot("xyz");
  Session session(model, {});
  std::vector<int32_t> history;
  const Answer a = answer(session, {.sampling = {.temperature = 0}, .stop_tokens = {'z'}}, history, {'z'});
  EXPECT_EQ(a.text, "xy");
  EXPECT_EQ(a.report.reason, StopReason::stop_token);
  EXPECT_EQ(a.report.tokens, 2);
}

TEST(Generation, Limits) {
  Model model = hybrid(1, 257);
  EXPECT_EQ(answer(model, {.max_tokens = 0}).report.tokens, 0);
  EXPECT_EQ(answer(model, {.max_tokens = 1}).report.tokens, 1);
  const Answer cancelled = answer(model, {.max_tokens = 1000}, 3);
  EXPECT_EQ(cancelled.report.reason, StopReason::cancelled);
  EXPECT_EQ(cancelled.parts.size(), 3u);
}

TEST(Generation, AnAnswerIsReadBeforeTheNextPrompt) {
  Model model = hybrid(1, 257);
  const GenerationOptions options{.sampling = {.temperature = 0}, .max_tokens = 10};
  Session talk(model, {.exact = true}), whole(model, {.exact = true});
  std::vector<int32_t> history, none;
  answer(talk, options, history, {1, 2, 3});
  const std::vector<int32_t> more = {7, 8, 9};
  std::vector<int32_t> all = history;
  all.insert(all.end(), more.begin(), more.end());
  const Answer second = answer(talk, options, history, more), at_once = answer(whole, options, none, all);
  EXPECT_EQ(second.tokens, at_once.tokens);
  EXPECT_EQ(talk.state().position, whole.state().position);
  EXPECT_EQ(history, none);
}

TEST(Generation, ASavedStateContinuesToTheBit) {
  TempFolder folder;
  Model model = hybrid(1, 257);
  Session session(model, {}), restored(model, {});
  const auto prompt = some_tokens(90, 256), next = some_tokens(9, 256, 8);
  session.feed(prompt);
  save_states(folder / "s.safetensors", {&session.state()}, model.state_specs(), "this model");
  restored.restore(std::move(load_states(folder / "s.safetensors", model.state_specs(), "this model")[0]));
  EXPECT_EQ(restored.state().position, 90);
  EXPECT_EQ(restored.state().bytes(), session.state().bytes());
  for (const int32_t t : next) EXPECT_TRUE(same_bits(session.feed({&t, 1}), restored.feed({&t, 1})));
  EXPECT_NE(
      error_of([&] { load_states(folder / "s.safetensors", model.state_specs(), "another"); }).find("another model"),
      std::string::npos);
  Model other(read_model_spec(Json{{"vocab", 257}, {"d_model", 32}, {"blocks", {{{"mixer", "gla"}}}}}, "other"),
              Rng(1));
  EXPECT_NE(
      error_of([&] { load_states(folder / "s.safetensors", other.state_specs(), "this model"); }).find("s.safetensors"),
      std::string::npos);
}

TEST(Generation, AStateBelongsToAModelAndItsWeights) {
  Model model = hybrid(1, 257), same = hybrid(1, 257), trained = hybrid(1, 257);
  EXPECT_EQ(model_tag(model), model_tag(same));
  trained.parameters([](const std::string& name, Parameter& p) {
    if (name == "norm.weight") p.init(Tensor::full(p.value().shape(), 1.0f + 0x1p-20f));
  });
  EXPECT_NE(model_tag(model), model_tag(trained));
}

// The distribution that the options describe, spelled out.
std::vector<double> expected_distribution(std::vector<float> logits, const std::vector<int32_t>& history,
                                          const SamplingOptions& o) {
  const size_t n = logits.size();
  std::vector<bool> seen(n, false);
  for (size_t i = history.size() - std::min<size_t>(history.size(), o.penalty_tokens); i < history.size(); ++i)
    seen[history[i]] = true;
  std::vector<double> p(n);
  for (size_t i = 0; i < n; ++i) {
    double z = logits[i];
    if (seen[i]) z = z > 0 ? z / o.repetition_penalty : z * o.repetition_penalty;
    p[i] = std::exp(z / o.temperature);
  }
  const auto normalise = [&] {
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& v : p) v /= total;
  };
  normalise();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  if (o.top_k > 0)
    for (size_t r = o.top_k; r < n; ++r) p[order[r]] = 0;
  normalise();
  double held = 0;
  for (const size_t i : order) {
    const bool enough = held >= o.top_p;
    held += p[i];
    if (enough) p[i] = 0;
  }
  const double most = p[order[0]];
  for (double& v : p)
    if (v < o.min_p * most) v = 0;
  normalise();
  return p;
}

TEST(Sampling, DrawsFollowTheDistribution) {
  std::vector<float> logits;
  Rng rng(11);
  for (int i = 0; i < 23; ++i) logits.push_back(static_cast<float>(1.5 * rng.normal()));
  logits[4] = -INFINITY;
  const std::vector<int32_t> history = {1, 2, 3, 3, 9, 2};
  const SamplingOptions settings[] = {{.temperature = 1},
                                      {.temperature = 0.5},
                                      {.temperature = 2.5},
                                      {.temperature = 1, .top_k = 5},
                                      {.temperature = 1, .top_p = 0.7},
                                      {.temperature = 1, .min_p = 0.2},
                                      {.temperature = 1.3, .top_k = 12, .top_p = 0.8, .min_p = 0.15},
                                      {.temperature = 1, .top_p = 0.6, .min_p = 0.35},
                                      {.temperature = 1, .repetition_penalty = 1.8},
                                      {.temperature = 1, .top_p = 0.9, .repetition_penalty = 0.5, .penalty_tokens = 2}};
  constexpr int kDraws = 20000;
  for (const SamplingOptions& o : settings) {
    const auto p = expected_distribution(logits, history, o);
    Sampler sampler(o);
    std::vector<int> counts(logits.size(), 0);
    for (int i = 0; i < kDraws; ++i) {
      std::vector<float> copy = logits;
      ++counts[sampler.choose(copy, history, i)];
    }
    double chi = 0, freedom = -1;
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0) {
        EXPECT_EQ(counts[i], 0) << "token " << i << " is filtered out";
        continue;
      }
      chi += (counts[i] - kDraws * p[i]) * (counts[i] - kDraws * p[i]) / (kDraws * p[i]);
      ++freedom;
    }
    EXPECT_LT(chi, freedom + 4 * std::sqrt(2 * freedom) + 4)
        << "temperature " << o.temperature << " k " << o.top_k << " p " << o.top_p << " min " << o.min_p;
  }
}

TEST(Sampling, DependsOnSeedPositionAndLogitsAlone) {
  std::vector<float> logits(50, 0);
  Sampler a({.temperature = 1, .seed = 5}), b({.temperature = 1, .seed = 5});
  std::vector<int32_t> forward, backward;
  for (int i = 0; i < 30; ++i) forward.push_back(a.choose(logits, {}, i));
  for (int i = 29; i >= 0; --i) backward.push_back(b.choose(logits, {}, i));
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
}

TEST(Sampling, NothingFiniteIsAnError) {
  for (const float bad : {NAN, -INFINITY, INFINITY}) {
    std::vector<float> logits(9, bad);
    Sampler sampler({.temperature = 1});
    EXPECT_NE(error_of([&] { sampler.choose(logits, {}, 0); }).find("finite"), std::string::npos) << bad;
  }
}

}  // namespace sennit::generation_test
