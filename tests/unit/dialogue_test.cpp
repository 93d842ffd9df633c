// Talking: a turn reads its own text only, and the answer is that to the whole text.
#include "decoding/dialogue.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/models.h"

namespace sennit::dialogue_test {

constexpr int32_t kVocab = 128, kEnd = 127;

// The characters of ASCII, the last of which is a special token that a prompt may spell as <E>.
struct Ascii : tokenizers::Tokenizer {
  std::string name() const override { return "ascii"; }
  int32_t vocab_size() const override { return kVocab; }
  tokenizers::SpecialTokens special() const override { return {.eos = kEnd}; }
  std::vector<int32_t> encode(std::string_view text) const override {
    return encode_prompt(text, {.parse_special = false});
  }
  std::vector<int32_t> encode_prompt(std::string_view text, const tokenizers::PromptOptions& o) const override {
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      const bool spelled = o.parse_special && text.substr(at, 3) == "<E>";
      ids.push_back(spelled ? kEnd : text[at]);
      at += spelled ? 3 : 1;
    }
    return ids;
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += bytes(id);
    return text;
  }
  std::string bytes(int32_t id) const override { return id == kEnd ? "" : std::string(1, static_cast<char>(id)); }
  std::string piece(int32_t id) const override { return id == kEnd ? "<E>" : bytes(id); }
  uint64_t fingerprint() const override { return 0; }
  void save(const std::string&) const override {}
};

constexpr const char* kTemplate =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<E>{% endfor %}{% if add_generation_prompt %}[assistant]{% "
    "endif %}";
// Leaves out the first half of all answers but the last.
constexpr const char* kForgetful =
    "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' %}{{ m.content[4:] }}{% else %}{{ m.content }}{% "
    "endif %}<E>"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

struct Talking : testing::Test {
  Ascii tokenizer;
  Model model = hybrid(5, kVocab);
  Context context = [] {
    Context c;
    c.exact = true;
    return c;
  }();
  GenerationOptions options{.sampling = {.temperature = 0.9, .seed = 4}, .max_tokens = 12};

  Dialogue begin(std::string chat_template, std::string system = "") {
    return Dialogue(model, tokenizer, context, {.chat_template = std::move(chat_template), .ends = {}},
                    std::move(system));
  }
  // What the model answers to the whole text at once.
  std::vector<int32_t> answer_to(const std::string& text) {
    Session session(model, context);
    std::vector<int32_t> history;
    const auto ids = tokenizer.encode_prompt(text, {});
    GenerationOptions o = options;
    o.stop_tokens = {kEnd};
    generate(session, tokenizer, ids, o, history, [](std::string_view) { return true; });
    return {history.begin() + std::ssize(ids), history.end()};
  }
};
const auto kHeard = [](std::string_view) { return true; };

TEST_F(Talking, ATurnReadsItsOwnTextOnly) {
  Dialogue d = begin(kTemplate, "be brief");
  std::string text = "[system]be brief<E>";
  size_t before = 0;
  for (const std::string said : {"hello", "and then?", "why"}) {
    text += "[user]" + said + "<E>[assistant]";
    const auto wanted = answer_to(text);
    const GenerationReport r = d.answer(said, options, kHeard);
    EXPECT_EQ(d.answered(), wanted);
    EXPECT_EQ(r.prompt_tokens, std::ssize(tokenizer.encode_prompt(text, {})) - static_cast<int64_t>(before));
    text += d.messages().back().at("content").get<std::string>();
    EXPECT_LE(r.tokens, 12);
    before = d.history().size();
    text += "<E>";
  }
  EXPECT_EQ(d.messages().size(), 7u);
  d.clear();
  EXPECT_EQ(d.messages().size(), 1u);
  d.answer("hello", options, kHeard);
  EXPECT_EQ(d.answered(), answer_to("[system]be brief<E>[user]hello<E>[assistant]"));
}

TEST_F(Talking, ATemplateThatChangesThePastIsFollowed) {
  Dialogue d = begin(kForgetful);
  d.answer("one", options, kHeard);
  const std::string said = d.messages().back().at("content");
  const GenerationReport r = d.answer("two", options, kHeard);
  tokenizers::ChatTemplate as_template(kForgetful);
  const std::string text = as_template.render(Json{
      {"messages", Json::array({d.messages()[0], d.messages()[1], d.messages()[2]})}, {"add_generation_prompt", true}});
  EXPECT_EQ(d.answered(), answer_to(text));
  EXPECT_LT(r.prompt_tokens, std::ssize(text)) << "the question before was not read again";
}

TEST_F(Talking, WhatIsSaidMakesNoSpecialToken) {
  Dialogue d = begin(kTemplate);
  d.answer("a<E>b", options, kHeard);
  const auto count = std::count(d.history().begin(), d.history().begin() + 20, kEnd);
  EXPECT_EQ(count, 1) << "the template's own, not the one that was said";
}

TEST_F(Talking, AnAnswerEndsWhereTheTemplateEndsIt) {
  Dialogue d = begin(kTemplate);
  GenerationOptions o = options;
  o.max_tokens = 3000;
  EXPECT_EQ(d.answer("hello", o, kHeard).reason, StopReason::stop_token);
  EXPECT_EQ(std::count(d.answered().begin(), d.answered().end(), kEnd), 0);
}

TEST_F(Talking, AStopTextIsNoPartOfTheConversation) {
  Dialogue d = begin(kTemplate), whole = begin(kTemplate);
  whole.answer("hello", options, kHeard);
  const std::string all = whole.messages().back().at("content");
  GenerationOptions stopped = options;
  stopped.stop = {all.substr(3, 1)};
  d.answer("hello", stopped, kHeard);
  const std::string said = d.messages().back().at("content");
  EXPECT_EQ(said.find(stopped.stop[0]), said.npos);
  d.answer("more", options, kHeard);
  EXPECT_EQ(d.answered(), answer_to("[user]hello<E>[assistant]" + said + "<E>[user]more<E>[assistant]"));
}

TEST_F(Talking, WithoutATemplateTheTextGoesOn) {
  Dialogue d = begin("");
  d.answer("once", options, kHeard);
  const std::string said = d.messages().back().at("content");
  d.answer("and", options, kHeard);
  EXPECT_EQ(d.answered(), answer_to("once" + said + "\nand"));
}

TEST_F(Talking, ACancelledPromptIsForgotten) {
  Dialogue d = begin(kTemplate);
  GenerationOptions o = options;
  o.reading = [](int64_t, int64_t) { return false; };
  EXPECT_EQ(d.answer(std::string(2000, 'x'), o, kHeard).reason, StopReason::cancelled);
  EXPECT_TRUE(d.messages().empty());
  d.answer("hello", options, kHeard);
  EXPECT_EQ(d.answered(), answer_to("[user]hello<E>[assistant]"));
}

// Scores are the log-softmax of the logits of the whole text, whatever its pieces.
TEST_F(Talking, ScoresAreThoseOfTheWholeText) {
  const NoGrad off;
  std::vector<int32_t> ids;
  for (int i = 0; i < 700; ++i) ids.push_back((i * i + 3 * i) % 120);
  Session session(model, context);
  std::vector<int32_t> history;
  GenerationOptions o = options;
  o.scores = 3;
  const GenerationReport r = generate(session, tokenizer, ids, o, history, kHeard);
  ASSERT_EQ(std::ssize(r.prompt_scores), 700);
  ASSERT_EQ(std::ssize(r.scores), r.tokens);
  EXPECT_FALSE(r.prompt_scores[0].log_probability.has_value());
  const Segment whole[] = {{0, std::ssize(history), 0, nullptr}};
  const Tensor y = model.logits(model.hidden(history, {whole, &context}), context).value();
  for (size_t i = 1; i < history.size(); ++i) {
    const TokenScore& s = i < 700 ? r.prompt_scores[i] : r.scores[i - 700];
    const float* row = y.data() + (static_cast<int64_t>(i) - 1) * kVocab;
    double sum = 0;
    for (int j = 0; j < kVocab; ++j) sum += std::exp(double{row[j]});
    ASSERT_EQ(s.token, history[i]);
    ASSERT_NEAR(*s.log_probability, row[s.token] - std::log(sum), 1e-12) << i;
    ASSERT_EQ(s.top.size(), 3u);
    EXPECT_EQ(s.top[0].first, std::max_element(row, row + kVocab) - row);
    EXPECT_GE(s.top[0].second, s.top[1].second);
  }
}

}  // namespace sennit::dialogue_test
