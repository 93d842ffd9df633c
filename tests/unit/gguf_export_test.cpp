// Vocabularies of tokenizer.json files as GGUF says them: the same ids when read back, or a reason why there is none.
#include "tokenizers/gguf_export.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "model/vocabulary.h"
#include "tokenizers/tokenizer_json.h"
#include "tokenizers/word_patterns.h"

namespace sennit::tokenizers::gguf_export_test {

// Bytes as GPT-2 writes them that need no table, and a few merges.
Json gpt2() {
  Json vocab = Json::object(), merges = Json::array();
  int64_t next = 0;
  for (char c = '!'; c <= '~'; ++c) vocab[std::string(1, c)] = next++;
  for (const char* more : {"\u0120", "\u010a", "th", "the", "\u0120the", "er", "12"}) vocab[more] = next++;
  for (const char* m : {"t h", "th e", "\u0120 the", "e r", "1 2"}) merges.push_back(m);
  return {{"added_tokens",
           {{{"id", next}, {"content", "<|end|>"}, {"special", true}},
            {{"id", next + 1}, {"content", "<tool>"}, {"special", false}, {"normalized", false}}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

Json llama() {
  Json vocab{{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}}, merges = Json::array();
  int64_t next = 3;
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = next++;
  for (const char* piece : {"\u2581", "t", "h", "e", "a", "th", "the", "\u2581the", "\u2581a"}) vocab[piece] = next++;
  for (const char* m : {"t h", "th e", "\u2581 the", "\u2581 a"}) merges.push_back(m);
  const auto special = [](int id, const char* name) { return Json{{"id", id}, {"content", name}, {"special", true}}; };
  return {{"added_tokens", {special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "\u2581"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"post_processor",
           {{"type", "TemplateProcessing"},
            {"single",
             {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
            {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
          {"model",
           {{"type", "BPE"},
            {"byte_fallback", true},
            {"fuse_unk", true},
            {"unk_token", "<unk>"},
            {"vocab", vocab},
            {"merges", merges}}}};
}

Json bert() {
  Json vocab{{"[PAD]", 0}, {"[UNK]", 1}, {"[CLS]", 2}, {"[SEP]", 3}};
  int64_t next = 4;
  for (const char* piece : {"the", "hello", "wor", "##ld", "a", "##a", "!", "1", "##2"}) vocab[piece] = next++;
  Json added = Json::array();
  for (const char* name : {"[PAD]", "[UNK]", "[CLS]", "[SEP]"})
    added.push_back({{"id", vocab[name]}, {"content", name}, {"special", true}});
  return {{"added_tokens", added},
          {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", {{"type", "BertProcessing"}, {"sep", {"[SEP]", 3}}, {"cls", {"[CLS]", 2}}}},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", vocab}}}};
}

void expect_same(const Tokenizer& a, const Tokenizer& b) {
  constexpr const char* kParts[] = {"the",   " the",  "th", "e",       " ",      "  ",     "\n",    "12",  "a",
                                    "hello", "world", "!",  "<|end|>", "<tool>", "\u00e9", "[SEP]", "</s>"};
  Rng rng(3);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (uint64_t n = rng.below(8); n > 0; --n) text += kParts[rng.below(std::size(kParts))];
    ASSERT_EQ(a.encode(text), b.encode(text)) << text;
    ASSERT_EQ(a.encode_prompt(text, {}), b.encode_prompt(text, {})) << text;
    ASSERT_EQ(a.decode(a.encode(text)), b.decode(b.encode(text))) << text;
  }
}

TEST(GgufExport, GivesTheSameIds) {
  for (const auto& [file, kind, pre] :
       {std::tuple{gpt2(), "gpt2", "gpt-2"}, {llama(), "llama", ""}, {bert(), "bert", ""}}) {
    const std::string text = json_text(file);
    const GgufExport e = gguf_of_tokenizer_json(text, "", "test");
    ASSERT_TRUE(e.vocabulary) << kind << ": " << e.reason;
    EXPECT_EQ(e.vocabulary->model, kind);
    EXPECT_EQ(e.vocabulary->pre, pre);
    const auto original = read_tokenizer_json(text, "", "test");
    const int64_t vocab = original->vocab_size() + 5;
    const auto back = tokenizer_of(gguf_vocabulary(*e.vocabulary, vocab), "test");
    EXPECT_EQ(back->vocab_size(), vocab);
    EXPECT_EQ(back->special().eos, original->special().eos);
    expect_same(*original, *back);
  }
}

TEST(GgufExport, WordsAreNamed) {
  Json llama3 = gpt2();
  llama3["pre_tokenizer"] = pre_tokenizer_of(word_patterns("llama-bpe", "test"));
  llama3["model"]["ignore_merges"] = true;
  EXPECT_EQ(gguf_of_tokenizer_json(json_text(llama3), "", "test").vocabulary.value().pre, "llama-bpe");
  Json qwen = gpt2();
  qwen["pre_tokenizer"] = pre_tokenizer_of(word_patterns("qwen2", "test"));
  qwen["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(gguf_of_tokenizer_json(json_text(qwen), "", "test").vocabulary.value().pre, "qwen2");
}

TEST(GgufExport, SaysWhyThereIsNone) {
  const auto reason = [](const Json& file) {
    const GgufExport e = gguf_of_tokenizer_json(json_text(file), "", "test");
    EXPECT_FALSE(e.vocabulary);
    return e.reason;
  };
  Json other = gpt2();
  other["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "x+"}}}, {"behavior", "Isolated"}, {"invert", false}};
  EXPECT_NE(reason(other).find("cut words"), std::string::npos);
  Json lowered = gpt2();
  lowered["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_NE(reason(lowered).find("normalizer"), std::string::npos);
  Json cased = bert();
  cased["normalizer"]["lowercase"] = false;
  EXPECT_NE(reason(cased).find("otherwise"), std::string::npos)
      << "GGUF's kind lowers all letters: found by reading it back";
  const Json words{{"model", {{"type", "WordLevel"}, {"unk_token", "?"}, {"vocab", {{"?", 0}, {"Hello", 1}}}}}};
  EXPECT_NE(reason(words).find("WordLevel"), std::string::npos);
  Json sparse = bert();
  sparse["model"]["vocab"]["far"] = 100000;
  EXPECT_NE(reason(sparse).find("have no token"), std::string::npos);
}

}  // namespace sennit::tokenizers::gguf_export_test
