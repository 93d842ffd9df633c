#include "tokenizers/tokenizer_json.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "support/temp_folder.h"
#include "tokenizers/base64.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/decoder.h"
#include "tokenizers/gguf_vocabulary.h"
#include "tokenizers/normalizer.h"
#include "tokenizers/pre_tokenizer.h"
#include "tokenizers/tiktoken.h"

namespace sennit::tokenizers::tokenizer_json_test {

using Ids = std::vector<int32_t>;
using Strings = std::vector<std::string>;

std::string normalized(const std::string& json, const std::string& text) {
  const Json file = json_of(json);
  return make_normalizer({file, "test"})->apply(text, 1000);
}

Strings words(const std::string& json, const std::string& text, bool first = true) {
  const Json file = json_of(json);
  Pieces pieces(text, first);
  make_pre_tokenizer({file, "test"}, {})->apply(pieces);
  Strings out;
  for (const Piece& p : pieces.list) out.emplace_back(p.text);
  return out;
}

Strings decoded(const std::string& json, const Strings& tokens) {
  const Json file = json_of(json);
  const Decoder decoder(JsonPart(file, "test"));
  Strings out;
  for (const std::string& t : tokens) out.push_back(decoder.apply(t, out.empty()));
  return out;
}

std::unique_ptr<Tokenizer> tokenizer(const Json& file, const std::string& config = "") {
  return read_tokenizer_json(json_text(file), config, "test");
}

TEST(Normalizers, ChangeText) {
  EXPECT_EQ(normalized(R"({"type": "NFC"})", "e\u0301 \ufb01"), "\u00e9 \ufb01");
  EXPECT_EQ(normalized(R"({"type": "NFD"})", "\u00e9"), "e\u0301");
  EXPECT_EQ(normalized(R"({"type": "NFKC"})", "\ufb01 \u2460 \u00e9"), "fi 1 \u00e9");
  EXPECT_EQ(normalized(R"({"type": "NFKD"})", "\ufb01 \u00e9"), "fi e\u0301");
  EXPECT_EQ(normalized(R"({"type": "Lowercase"})", "AÉ\u0130ΑΣ"), "aéi\u0307ασ");
  EXPECT_EQ(normalized(R"({"type": "StripAccents"})", "e\u0301\u0903a"), "ea");
  EXPECT_EQ(normalized(R"({"type": "Strip"})", "\u3000 a b \n"), "a b");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_right": false})", " a "), "a ");
  EXPECT_EQ(normalized(R"({"type": "Strip", "strip_left": false})", " a "), " a");
  EXPECT_EQ(normalized(R"({"type": "Strip"})", " \n "), "");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", "a"), "_a");
  EXPECT_EQ(normalized(R"({"type": "Prepend", "prepend": "_"})", ""), "");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"String": "aa"}, "content": "b"})", "aaaaa"), "bba");
  EXPECT_EQ(normalized(R"({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"})", "a   b c"),
            "a\u2581b c");
  EXPECT_EQ(
      normalized(
          R"({"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": "a"}, "content": "A"}]})",
          "aBA"),
      "AbA");
  EXPECT_EQ(normalized(R"({"type": "ByteLevel"})", " é"), "ĠÃ©");
}

TEST(Normalizers, BertCleansSeparatesAndLowers) {
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer"})", std::string("H\u00e9\tl\u200bo\0\ufffd\u4e2dx", 17)),
            "he lo \u4e2d x");
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer", "lowercase": false})", "H\u00e9"), "H\u00e9");
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer", "lowercase": false, "strip_accents": true})", "H\u00e9"), "He");
  EXPECT_EQ(normalized(R"({"type": "BertNormalizer", "clean_text": false, "handle_chinese_chars": false})", "\t\u4e2d"),
            "\t\u4e2d");
}

TEST(PreTokenizers, CutAtDelimitersInEveryWay) {
  const auto cut = [](const std::string& behavior, const std::string& rest = "") {
    return words(R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + behavior + "\"" + rest + "}",
                 "the-final--countdown");
  };
  EXPECT_EQ(cut("Removed"), (Strings{"the", "final", "countdown"}));
  EXPECT_EQ(cut("Isolated"), (Strings{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(cut("MergedWithPrevious"), (Strings{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(cut("MergedWithNext"), (Strings{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(cut("Contiguous"), (Strings{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(cut("Removed", R"(, "invert": true)"), (Strings{"-", "-", "-"}));
}

TEST(PreTokenizers, CutIntoWords) {
  EXPECT_EQ(words(R"({"type": "Whitespace"})", "Hey, man!  x_1"), (Strings{"Hey", ",", "man", "!", "x_1"}));
  EXPECT_EQ(words(R"({"type": "WhitespaceSplit"})", " Hey,\u3000man! "), (Strings{"Hey,", "man!"}));
  EXPECT_EQ(words(R"({"type": "BertPreTokenizer"})", "Hey friend!  \u00bfx$"),
            (Strings{"Hey", "friend", "!", "\u00bf", "x", "$"}));
  EXPECT_EQ(words(R"({"type": "Punctuation"})", "a!!b"), (Strings{"a", "!", "!", "b"}));
  EXPECT_EQ(words(R"({"type": "Punctuation", "behavior": "Contiguous"})", "a!!b"), (Strings{"a", "!!", "b"}));
  EXPECT_EQ(words(R"({"type": "Digits"})", "a12\u0663b"), (Strings{"a", "12\u0663", "b"}));
  EXPECT_EQ(words(R"({"type": "Digits", "individual_digits": true})", "a12"), (Strings{"a", "1", "2"}));
  EXPECT_EQ(words(R"({"type": "CharDelimiterSplit", "delimiter": "é"})", "aébé"), (Strings{"a", "b"}));
  EXPECT_EQ(words(R"({"type": "ByteLevel"})", "Hi  é"), (Strings{"ĠHi", "Ġ", "ĠÃ©"}));
  EXPECT_EQ(words(R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "Hi é"),
            (Strings{"HiĠÃ©"}));
  EXPECT_EQ(
      words(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Digits"}]})", "a1 2"),
      (Strings{"a", "1", "2"}));
}

TEST(PreTokenizers, MetaspaceMarksSpaces) {
  const std::string plain = R"({"type": "Metaspace", "replacement": "▁")";
  EXPECT_EQ(words(plain + "}", "Hey  you"), (Strings{"▁Hey", "▁", "▁you"}));
  EXPECT_EQ(words(plain + R"(, "split": false})", "Hey you"), (Strings{"▁Hey▁you"}));
  EXPECT_EQ(words(plain + R"(, "prepend_scheme": "never"})", "Hey you"), (Strings{"Hey", "▁you"}));
  EXPECT_EQ(words(plain + R"(, "prepend_scheme": "first"})", "Hey", true), (Strings{"▁Hey"}));
  EXPECT_EQ(words(plain + R"(, "prepend_scheme": "first"})", "Hey", false), (Strings{"Hey"}));
  EXPECT_EQ(words(plain + R"(, "add_prefix_space": false})", "Hey"), (Strings{"Hey"}));
  EXPECT_EQ(words(plain + "}", " Hey"), (Strings{"▁Hey"}));
}

TEST(Decoders, WorkTokenByToken) {
  EXPECT_EQ(decoded(R"({"type": "ByteLevel"})", {"ĠHi", "Ã", "©", "你"}), (Strings{" Hi", "\xc3", "\xa9", "你"}));
  EXPECT_EQ(decoded(R"({"type": "WordPiece"})", {"he", "##llo", "you", ",", "do", "n't"}),
            (Strings{"he", "llo", " you", ",", " do", "n't"}));
  EXPECT_EQ(decoded(R"({"type": "WordPiece", "prefix": "@@", "cleanup": false})", {"a", "@@b", "."}),
            (Strings{"a", "b", " ."}));
  EXPECT_EQ(decoded(R"({"type": "Metaspace"})", {"▁a", "▁b"}), (Strings{"a", " b"}));
  EXPECT_EQ(decoded(R"({"type": "Metaspace", "prepend_scheme": "never"})", {"▁a"}), (Strings{" a"}));
  const std::string llama =
      R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";
  EXPECT_EQ(decoded(llama, {"▁▁a", "▁b", "<0xC3>", "<0xA9>", "<0xZZ>"}),
            (Strings{" a", " b", "\xc3", "\xa9", "<0xZZ>"}));
  EXPECT_EQ(decoded(R"({"type": "Strip", "content": "_", "start": 2, "stop": 1})", {"___a__", "_b"}),
            (Strings{"_a_", "b"}));
  for (const char* bad : {R"({"type": "CTC"})", R"({"type": "BPEDecoder"})", R"({"type": "Strip", "content": ""})",
                          R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})"})
    EXPECT_NE(error_of([&] { decoded(bad, {}); }), "") << bad;
}

// A byte-level tokenizer that knows no merges but "ab", and tokens of all kinds.
Json small_file() {
  Json vocab = Json::object();
  const std::string text =
      R"({"version": "1.0", "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "merges": ["a b"]}, "added_tokens": [
      {"id": 300, "content": "<s>", "special": true}, {"id": 301, "content": "</s>", "special": true},
      {"id": 302, "content": "<tool>", "special": false, "normalized": false},
      {"id": 303, "content": "<tool>s", "special": false, "normalized": false},
      {"id": 304, "content": "<l>", "special": true, "lstrip": true}, {"id": 305, "content": "<r>", "special": true, "rstrip": true},
      {"id": 306, "content": "word", "special": false, "single_word": true, "normalized": false}],
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": "</s>", "type_id": 0}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [300], "tokens": ["<s>"]},
      "</s>": {"id": "</s>", "ids": [301], "tokens": ["</s>"]}}}})";
  Json file = json_of(text);
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    vocab[byte_level::to_chars({&byte, 1})] = b;
  }
  vocab["ab"] = 256;
  file["model"]["vocab"] = vocab;
  return file;
}

TEST(TokenizerJson, PlainTextMakesNoSpecialTokens) {
  const auto t = tokenizer(small_file());
  EXPECT_EQ(t->encode("ab<s>"), (Ids{256, '<', 's', '>'}));
  EXPECT_EQ(t->encode_prompt("ab<s>", {.add_special = false}), (Ids{256, 300}));
  EXPECT_EQ(t->encode_prompt("ab<s>", {.parse_special = false}), (Ids{300, 256, '<', 's', '>', 301}));
  EXPECT_EQ(t->encode_prompt("a"), (Ids{300, 'a', 301}));
  EXPECT_EQ(t->encode(""), Ids{});
  EXPECT_EQ(t->encode_prompt(""), (Ids{300, 301}));
}

TEST(TokenizerJson, AddedTokensAreFoundByTheirRules) {
  const auto t = tokenizer(small_file());
  EXPECT_EQ(t->encode("x<tool>y<tool>s"), (Ids{'x', 302, 'y', 303}));
  EXPECT_EQ(t->encode("<tool"), (Ids{'<', 't', 'o', 'o', 'l'}));
  EXPECT_EQ(t->encode_prompt("x \n<l> y", {.add_special = false}), (Ids{'x', 304, ' ', 'y'}));
  EXPECT_EQ(t->encode_prompt("x <r> \ny", {.add_special = false}), (Ids{'x', ' ', 305, 'y'}));
  EXPECT_EQ(t->encode_prompt("<r>  <l>", {.add_special = false}), (Ids{305, 304}));
  EXPECT_EQ(t->encode("a word, words"), (Ids{'a', ' ', 306, ',', ' ', 'w', 'o', 'r', 'd', 's'}));
}

TEST(TokenizerJson, NormalizedTokensAreFoundInNormalizedText) {
  Json file = small_file();
  file["normalizer"] = {{"type", "Lowercase"}};
  file["added_tokens"].push_back({{"id", 310}, {"content", "<Big>"}, {"special", false}, {"normalized", true}});
  const auto t = tokenizer(file);
  EXPECT_EQ(t->encode("A<BIG>b"), (Ids{'a', 310, 'b'}));
  EXPECT_EQ(t->encode("<TOOL><tool>").back(), 302);
  EXPECT_EQ(t->encode("<TOOL>").size(), 6u);
}

TEST(TokenizerJson, DecodesAndStreams) {
  const auto t = tokenizer(small_file());
  const std::string text = "ab é你 👩 </s> word";
  const Ids ids = t->encode_prompt(text);
  EXPECT_EQ(t->decode(ids), "ab é你 👩  word");  // the special token in the text is gone
  StreamDecoder stream(*t);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string piece = stream.push(id);
    ASSERT_TRUE(is_utf8(piece));
    streamed += piece;
  }
  EXPECT_EQ(streamed + stream.finish(), t->decode(ids));
  EXPECT_EQ(t->piece(300), "<s>");
  EXPECT_EQ(t->piece(290), "");
  EXPECT_TRUE(t->is_special(300));
  EXPECT_FALSE(t->is_special(302));
  EXPECT_THROW(t->decode(Ids{307}), Error);
  EXPECT_THROW(t->piece(-1), Error);
}

TEST(TokenizerJson, BrokenUtf8IsReadAsReplacementCharacters) {
  const auto t = tokenizer(small_file());
  EXPECT_EQ(t->decode(t->encode("a\xff\xe4\xbd z\xc3")), "a\ufffd\ufffd z\ufffd");
}

TEST(TokenizerJson, FirstSpacesOfAStreamGoAsInTheWhole) {
  Json file = json_of(
      R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace",
      "pattern": {"String": " "}, "content": "▁"}]}, "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "added_tokens": [{"id": 0, "content": "<s>", "special": true}],
    "model": {"type": "BPE", "vocab": {"<s>": 0, "▁": 1, "a": 2, "▁a": 3}, "merges": ["▁ a"]}})");
  const auto t = tokenizer(file);
  for (const char* text : {"a a", " a", "  a  ", "", " "}) {
    Ids ids = t->encode(text);
    ids.insert(ids.begin(), 0);
    EXPECT_EQ(t->decode(ids), text);
    StreamDecoder stream(*t);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), text);
  }
}

TEST(TokenizerJson, SpecialTokensAreThoseOfTheConfiguration) {
  EXPECT_EQ(tokenizer(small_file())->special().bos, 300);
  EXPECT_EQ(tokenizer(small_file())->special().eos, 301);
  const auto t = tokenizer(small_file(), R"({"bos_token": null, "eos_token": {"content": "<r>"}, "pad_token": "<l>"})");
  EXPECT_EQ(t->special().bos, -1);
  EXPECT_EQ(t->special().eos, 305);
  EXPECT_EQ(t->special().pad, 304);
  EXPECT_THROW(tokenizer(small_file(), "[]"), Error);
}

TEST(TokenizerJson, SavesWhatItLoads) {
  TempFolder dir;
  const std::string config = R"({"eos_token": "<r>"})";
  const auto t = tokenizer(small_file(), config);
  t->save(dir.path());
  const auto again = load_tokenizer(dir.path());
  EXPECT_EQ(again->fingerprint(), t->fingerprint());
  EXPECT_EQ(again->special().eos, 305);
  EXPECT_EQ(load_tokenizer(dir / "tokenizer.json")->encode("ab <tool>"), t->encode("ab <tool>"));
  EXPECT_EQ(again->name(), "BPE");
}

TEST(TokenizerJson, WordModelsWorkInWholeFiles) {
  const auto bert = tokenizer(json_of(
      R"({"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": {"type": "WordPiece"},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hel": 3, "##lo": 4, "!": 5}},
    "added_tokens": [{"id": 1, "content": "[CLS]", "special": true}, {"id": 2, "content": "[SEP]", "special": true}],
    "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}})"));
  EXPECT_EQ(bert->encode_prompt("Hello! zz"), (Ids{1, 3, 4, 5, 0, 2}));
  EXPECT_EQ(bert->decode(bert->encode_prompt("Hello!")), "hello!");
  const auto level = tokenizer(json_of(
      R"({"pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1}}})"));
  EXPECT_EQ(level->encode("a b a"), (Ids{1, 0, 1}));
  EXPECT_EQ(level->decode(Ids{1, 1}), "a a");
}

// Unigram, Metaspace and the table of replacements, against the library that they come from.
TEST(TokenizerJson, UnigramIsAsSentencePiece) {
  TempFolder dir;
  std::string text;
  Rng rng(5);
  for (int i = 0; i < 20000; ++i) {
    const char* parts[] = {"sea", "strand", "braid", "the", "a", "lines", "no\u00ebl", "\u4f60\u597d", "ship's", "42"};
    text.append(parts[rng.below(10)]).append(i % 9 ? " " : ".\n");
  }
  spill(dir / "text.txt", text);
  ASSERT_TRUE(sentencepiece::SentencePieceTrainer::Train(
                  "--model_type=unigram --vocab_size=100 --hard_vocab_limit=false --minloglevel=3 --input=" + (dir / "text.txt") +
                  " --model_prefix=" + (dir / "m"))
                  .ok());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(dir / "m.model").ok());
  Json pieces = Json::array();
  for (int id = 0; id < library.GetPieceSize(); ++id) pieces.push_back({library.IdToPiece(id), library.GetScore(id)});
  // The table stands in the model as field 2 of its field 3: found by its size, which begins it.
  const std::string model = slurp(dir / "m.model");
  const size_t name = model.find("\x0a\x08nmt_nfkc\x12");
  ASSERT_NE(name, std::string::npos);
  size_t at = name + 11, length = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(model[at++]);
    length |= static_cast<size_t>(byte & 127) << shift;
    if (byte < 128) break;
  }
  const Json collapse = {{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}};
  const Json table = {{"type", "Precompiled"}, {"precompiled_charsmap", to_base64(model.substr(at, length))}};
  const auto t =
      tokenizer({{"normalizer", {{"type", "Sequence"}, {"normalizers", {table, {{"type", "Strip"}}, collapse}}}},
                 {"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "always"}}},
                 {"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", pieces}}}});
  const std::string strange[] = {"the sea",
                                 "strands",
                                 "The \ufb01ne \u2460 \uff21\uff22",
                                 "no\u00ebl noe\u0308l",
                                 "  two  spaces ",
                                 "\u4f60\u597d\u4f60",
                                 "\u3000wide",
                                 "tab\there\nline",
                                 "ship\u2019s 4242",
                                 "\u00bd\u2126",
                                 "\u30ac\u30ab\u3099"};
  for (const std::string& s : strange) {
    Ids want;
    ASSERT_TRUE(library.Encode(s, &want).ok());
    EXPECT_EQ(t->encode(s), want) << s;
  }
  for (int i = 0; i < 500; ++i) {
    std::string s;
    for (int64_t n = 1 + rng.below(12); n > 0; --n)
      s += strange[rng.below(11)].substr(0, 4) + (rng.below(2) ? " " : "");
    if (!is_utf8(s)) continue;
    Ids want;
    ASSERT_TRUE(library.Encode(s, &want).ok());
    ASSERT_EQ(t->encode(s), want) << s;
  }
}

TEST(TokenizerJson, RefusesHostileFilesInGoodTime) {
  const auto error = [](const std::string& text) {
    return error_of([&] { read_tokenizer_json(text, "", "the file"); });
  };
  const auto with = [](const char* path, const char* value) {
    Json file = small_file();
    file[Json::json_pointer(path)] = json_of(value);
    return json_text(file);
  };
  std::string nested_pre = R"({"type": "Digits"})", deep = "1";
  for (int i = 0; i < 20; ++i) nested_pre = R"({"type": "Sequence", "pretokenizers": [)" + nested_pre + "]}";
  for (int i = 0; i < 100000; ++i) deep = "[" + deep;
  const std::string bad[] = {
      "",
      "[]",
      "3",
      "{",
      "{}",
      R"({"model": null})",
      R"({"model": {"type": "Magic"}})",
      deep,
      with("/model/type", "7"),
      with("/model/merges", R"(["a b", "ab zz"])"),
      with("/model/vocab/ab", "97"),
      with("/model/vocab/ab", "4194304"),
      with("/model/vocab/ab", "1.5"),
      with("/added_tokens/0/id", "97"),
      with("/added_tokens/0/id", "-1"),
      with("/added_tokens/0/id", "1e300"),
      with("/added_tokens/0/content", R"("</s>")"),
      with("/added_tokens/0/content", R"("")"),
      with("/added_tokens/0", "{}"),
      with("/added_tokens", "3"),
      with("/pre_tokenizer", nested_pre.c_str()),
      with("/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"})"),
      with("/pre_tokenizer", R"({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated"})"),
      with("/pre_tokenizer", R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways"})"),
      with("/pre_tokenizer", R"({"type": "UnicodeScripts"})"),
      with("/pre_tokenizer", "[]"),
      with("/normalizer", R"({"type": "Nmt"})"),
      with("/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "AAA"})"),
      with("/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "/////w=="})"),
      with("/decoder", R"({"type": "CTC"})"),
      with("/post_processor/single", "[]"),
      with("/post_processor/special_tokens/<s>/ids", "[4000000]"),
      with("/post_processor/special_tokens/<s>/ids", "[-1]"),
      with("/post_processor/special_tokens", "{}")};
  for (size_t i = 0; i < std::size(bad); ++i)
    EXPECT_NE(error(bad[i]).find("the file"), std::string::npos)
        << i << ": " << bad[i].substr(0, 100) << " -> " << error(bad[i]);
  Json swelling = Json::array();
  for (int i = 0; i < 64; ++i)
    swelling.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaa"}});
  Json file = small_file();
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", swelling}};
  EXPECT_NE(error_of([&] { tokenizer(file)->encode("aaaa"); }).find("bytes at most"), std::string::npos);
  file = small_file();
  file["pre_tokenizer"] =
      json_of(R"x({"type": "Split", "pattern": {"Regex": "(a+)+[xy]"}, "behavior": "Isolated"})x");
  EXPECT_NE(error_of([&] { tokenizer(file)->encode(std::string(10000, 'a')); }).find("regex"), std::string::npos);
}

TEST(Tiktoken, RanksAreMergedLowestFirst) {
  const std::string tokens[] = {"a", "b", "c", " ", "ab", "bc", "abc", " a", "\xc3", "\xa9"};
  std::string ranks;
  for (size_t i = 0; i < 10; ++i) ranks += to_base64(tokens[i]) + " " + std::to_string(i) + "\n";
  const auto t = read_tiktoken(ranks, "gpt2", "test");
  EXPECT_EQ(t->encode("abc"), (Ids{6}));
  EXPECT_EQ(t->encode("bcab"), (Ids{5, 4}));
  EXPECT_EQ(t->encode("a abc"), (Ids{0, 3, 6}));
  EXPECT_EQ(t->encode("é"), (Ids{8, 9}));
  EXPECT_EQ(t->encode_prompt("a<|endoftext|>"), (Ids{0, 50256}));
  EXPECT_EQ(t->special().eos, 50256);
  EXPECT_EQ(t->decode(t->encode("abc é")), "abc é");
  TempFolder dir;
  spill(dir / "cl100k_base.tiktoken", ranks);
  EXPECT_EQ(load_tokenizer(dir / "cl100k_base.tiktoken")->encode("abc"), (Ids{6}));
  spill(dir / "mine.tiktoken", ranks);
  EXPECT_NE(error_of([&] { load_tokenizer(dir / "mine.tiktoken"); }).find("`mine`"), std::string::npos);
  for (const char* bad : {"YQ== 0\nYg== x\n", "YQ== 0\nYg==\n", "YQ== 0\nYg== 0\n", "YQ== 0\nYQ== 1\n", "YQ== 0\n! 1\n",
                          "YQ== -1\n", "YQ== 99999999\n", "YQ== 0\nYg== 4100\n", " 0\n"})
    EXPECT_NE(error_of([&] { read_tiktoken(bad, "gpt2", "the file"); }).find("the file"), std::string::npos) << bad;
  EXPECT_EQ(read_tiktoken("YQ== 0\nYg== 4099\n", "gpt2", "")->encode("b"), (Ids{4099}));
}

TEST(Gguf, VocabulariesBecomeTokenizers) {
  const auto gpt2 = tokenizer_of_gguf({.model = "gpt2",
                                       .pre = "llama-bpe",
                                       .tokens = {"a", "b", "Ġ", "ab", "<s>", "<t>"},
                                       .types = {1, 1, 1, 1, 3, 4},
                                       .scores = {},
                                       .merges = {"a b"},
                                       .bos = 4,
                                       .eos = -1,
                                       .unk = -1,
                                       .pad = -1},
                                      "test");
  EXPECT_EQ(gpt2->encode("ab a<t><s>"), (Ids{3, 2, 0, 5}));
  EXPECT_EQ(gpt2->encode_prompt("ab<s>"), (Ids{4, 3, 4}));
  EXPECT_EQ(gpt2->special().bos, 4);
  GgufVocabulary llama{.model = "llama",
                       .pre = "",
                       .tokens = {"<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁a"},
                       .types = {2, 3, 3, 6, 6, 1, 1, 1, 1, 1},
                       .scores = {0, 0, 0, 0, 0, -7, -8, -9, -3, -2},
                       .merges = {},
                       .bos = 1,
                       .eos = 2,
                       .unk = 0,
                       .pad = -1};
  const auto spm = tokenizer_of_gguf(llama, "test");
  // "▁a" scores more than "ab" and is made first.
  EXPECT_EQ(spm->encode_prompt("ab é"), (Ids{1, 9, 7, 5, 3, 4}));
  EXPECT_EQ(spm->decode(spm->encode("ab é")), "ab é");
  llama.add_space_prefix = false, llama.add_bos = false, llama.add_eos = true;
  EXPECT_EQ(tokenizer_of_gguf(llama, "test")->encode_prompt("ab"), (Ids{8, 2}));
  const auto bert = tokenizer_of_gguf({.model = "bert",
                                       .pre = "",
                                       .tokens = {"[UNK]", "[CLS]", "[SEP]", "▁hel", "lo"},
                                       .types = {2, 3, 3, 1, 1},
                                       .scores = {},
                                       .merges = {},
                                       .bos = 1,
                                       .eos = 2,
                                       .unk = 0,
                                       .pad = -1},
                                      "test");
  EXPECT_EQ(bert->encode_prompt("Hello x"), (Ids{1, 3, 4, 0, 2}));
  llama.scores.pop_back();
  EXPECT_THROW(tokenizer_of_gguf(llama, "test"), Error);
  EXPECT_THROW(
      tokenizer_of_gguf({.model = "rwkv", .pre = "", .tokens = {"a"}, .types = {}, .scores = {}, .merges = {}}, "test"),
      Error);
}

}  // namespace sennit::tokenizers::tokenizer_json_test
