#include "tokenizers/word_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "support/temp_folder.h"
#include "tokenizers/byte_level.h"

namespace sennit::tokenizers::word_model_test {

std::vector<int32_t> encode(const WordModel& model, std::string_view word) {
  std::vector<int32_t> ids;
  model.encode(word, ids);
  return ids;
}

// A random vocabulary over `letters`: merges of tokens that are there already.
Json random_bpe(Rng& rng, const std::vector<std::string>& letters, int merges) {
  Json vocab = Json::object(), list = Json::array();
  std::vector<std::string> tokens = letters;
  for (int i = 0; i < merges; ++i) {
    const std::string l = tokens[rng.below(static_cast<int64_t>(tokens.size()))];
    const std::string r = tokens[rng.below(static_cast<int64_t>(tokens.size()))];
    const Json pair = {l, r};
    if (l.size() + r.size() > 24 || std::find(list.begin(), list.end(), pair) != list.end()) continue;
    list.push_back(pair);
    if (std::find(tokens.begin(), tokens.end(), l + r) == tokens.end()) tokens.push_back(l + r);
  }
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"vocab", vocab}, {"merges", list}};
}

// Looks through all merges, first to last, and joins the leftmost pair of the first that is there, again and again.
std::vector<int32_t> naive_bpe(const Json& model, std::vector<std::string> symbols) {
  bool joined = true;
  while (joined) {
    joined = false;
    for (const Json& m : model["merges"]) {
      for (size_t i = 0; i + 1 < symbols.size() && !joined; ++i)
        if (symbols[i] == m[0] && symbols[i + 1] == m[1]) {
          symbols[i] += symbols[i + 1];
          symbols.erase(symbols.begin() + static_cast<int64_t>(i) + 1);
          joined = true;
        }
      if (joined) break;
    }
  }
  std::vector<int32_t> ids;
  for (const std::string& s : symbols) ids.push_back(model["vocab"][s].get<int32_t>());
  return ids;
}

TEST(Bpe, EqualsItsDefinition) {
  Rng rng(1);
  for (int round = 0; round < 30; ++round) {
    const std::vector<std::string> letters = {"a", "b", "é", "你", "\u2581"};
    const Json file = random_bpe(rng, letters, 60);
    Vocabulary vocabulary;
    const auto model = make_bpe({file, "test"}, false, vocabulary);
    for (const int length : {0, 1, 2, 3, 5, 10, 20, 47, 48, 49, 50, 100, 200}) {
      std::vector<std::string> symbols;
      std::string word;
      for (int i = 0; i < length; ++i) word += symbols.emplace_back(letters[rng.below(round % 2 ? 5 : 2)]);
      ASSERT_EQ(encode(*model, word), naive_bpe(file, symbols)) << word;
      ASSERT_EQ(encode(*model, word), naive_bpe(file, symbols)) << "remembered: " << word;
    }
  }
}

TEST(Bpe, BytesAreSymbols) {
  Rng rng(2);
  std::vector<std::string> letters;
  for (const char* b : {"a", " ", "\xc3", "\xa9", "\n"}) letters.push_back(byte_level::to_chars(b));
  const Json file = random_bpe(rng, letters, 60);
  Vocabulary vocabulary;
  const auto model = make_bpe({file, "test"}, true, vocabulary);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::string> symbols;
    std::string word;
    for (int64_t n = rng.below(70); n > 0; --n)
      word += *byte_level::to_bytes(symbols.emplace_back(letters[rng.below(5)]));
    ASSERT_EQ(encode(*model, word), naive_bpe(file, symbols));
  }
}

TEST(Bpe, UnknownCharactersFallBack) {
  Json file = json_of(
      R"({"vocab": {"<unk>": 0, "a": 1, "<0xC3>": 2, "<0xA9>": 3, "aa": 4}, "merges": ["a a"], "unk_token": "<unk>"})");
  const auto ids = [&](const std::string& word) {
    Vocabulary vocabulary;
    return encode(*make_bpe({file, "test"}, false, vocabulary), word);
  };
  EXPECT_EQ(ids("aéé你a"), (std::vector<int32_t>{1, 0, 0, 0, 1}));
  file["fuse_unk"] = true;
  EXPECT_EQ(ids("aéé你a"), (std::vector<int32_t>{1, 0, 1}));
  file["byte_fallback"] = true;
  EXPECT_EQ(ids("aaé你é"), (std::vector<int32_t>{4, 2, 3, 0, 2, 3}));
  file.erase("unk_token");
  EXPECT_EQ(ids("你a"), (std::vector<int32_t>{1}));
}

TEST(Bpe, PrefixesAndSuffixesAreParts) {
  const Json clip = json_of(
      R"({"vocab": {"a": 0, "b": 1, "b</w>": 2, "ab</w>": 3, "a</w>": 4}, "merges": ["a b</w>"], "end_of_word_suffix": "</w>"})");
  Vocabulary v;
  const auto model = make_bpe({clip, "test"}, false, v);
  EXPECT_EQ(encode(*model, "ab"), (std::vector<int32_t>{3}));
  EXPECT_EQ(encode(*model, "aab"), (std::vector<int32_t>{0, 3}));
  EXPECT_EQ(encode(*model, "a"), (std::vector<int32_t>{4}));
  const Json continued = json_of(
      R"({"vocab": {"a": 0, "##b": 1, "ab": 2, "##a": 3}, "merges": ["a ##b"], "continuing_subword_prefix": "##"})");
  Vocabulary w;
  EXPECT_EQ(encode(*make_bpe({continued, "test"}, false, w), "aba"), (std::vector<int32_t>{2, 3}));
}

TEST(Bpe, IgnoredMergesTakeTheWholeWord) {
  Json file = json_of(R"({"vocab": {"a": 0, "b": 1, "ba": 2, "aba": 3}, "merges": [], "ignore_merges": true})");
  Vocabulary v, w;
  EXPECT_EQ(encode(*make_bpe({file, "test"}, false, v), "aba"), (std::vector<int32_t>{3}));
  file["ignore_merges"] = false;
  EXPECT_EQ(encode(*make_bpe({file, "test"}, false, w), "aba"), (std::vector<int32_t>{0, 1, 0}));
}

TEST(Bpe, RefusesWhatCannotBe) {
  for (const char* bad :
       {R"({"vocab": {"a": 0}, "merges": ["a b"]})", R"({"vocab": {"a": 0, "b": 1}, "merges": ["a b"]})",
        R"({"vocab": {"a": 0, "b": 0}, "merges": []})", R"({"vocab": {"a": 0}, "merges": ["a"]})",
        R"({"vocab": {"a": 0}, "merges": ["a  a"]})", R"({"vocab": {"a": 0}, "merges": [["a"]]})",
        R"({"vocab": {"a": 0}, "merges": [3]})", R"({"vocab": {"a": -1}, "merges": []})",
        R"({"vocab": {"a": 1e9}, "merges": []})", R"({"vocab": {"a": 99999999999}, "merges": []})",
        R"({"vocab": ["a"], "merges": []})", R"({"vocab": {"a": 0}})", R"({"merges": []})",
        R"({"vocab": {"a": 0}, "merges": [], "dropout": 0.1})",
        R"({"vocab": {"a": 0}, "merges": [], "unk_token": "<unk>"})"}) {
    const Json file = json_of(bad);
    Vocabulary v;
    EXPECT_NE(error_of([&] { make_bpe({file, "the file"}, false, v); }).find("the file"), std::string::npos) << bad;
  }
}

TEST(WordPiece, TakesTheLongestPieceFromTheLeft) {
  const Json file = json_of(
      R"({"vocab": {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "##a": 4, "u": 5, "é": 6, "##é": 7}, "max_input_chars_per_word": 9})");
  Vocabulary v;
  const auto model = make_word_piece({file, "test"}, v);
  EXPECT_EQ(encode(*model, "unaffable"), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(encode(*model, "ua"), (std::vector<int32_t>{5, 4}));
  EXPECT_EQ(encode(*model, "unx"), (std::vector<int32_t>{0}));
  EXPECT_EQ(encode(*model, "ééééééééé").size(), 9u);
  EXPECT_EQ(encode(*model, "éééééééééé"), (std::vector<int32_t>{0}));
}

// The best of all cuts, by trying them; a character that is no piece by itself may be unknown.
double best_score(const std::map<std::string, double>& pieces, const std::string& word, double unknown) {
  if (word.empty()) return 0;
  double best = -std::numeric_limits<double>::infinity();
  for (size_t n = 1; n <= word.size(); ++n)
    if (const auto p = pieces.find(word.substr(0, n)); p != pieces.end())
      best = std::max(best, p->second + best_score(pieces, word.substr(n), unknown));
  if (!pieces.contains(word.substr(0, 1))) best = std::max(best, unknown + best_score(pieces, word.substr(1), unknown));
  return best;
}

TEST(Unigram, FindsTheMostProbableCut) {
  Rng rng(4);
  for (int round = 0; round < 40; ++round) {
    std::map<std::string, double> pieces;
    Json vocab = Json::array({{"<unk>", 0.0}});
    double lowest = 0;
    for (int i = 0; i < 20; ++i) {
      std::string piece(i < 3 ? 1 : 0, "abc"[i % 3]);  // each letter is a piece, x is none
      for (int64_t n = i < 3 ? 0 : 1 + rng.below(4); n > 0; --n) piece += "abc"[rng.below(3)];
      const double score = -1 - 9 * rng.uniform();
      if (!pieces.emplace(piece, score).second) continue;
      vocab.push_back({piece, score});
      lowest = std::min(lowest, score);
    }
    const Json file = {{"vocab", vocab}, {"unk_id", 0}};
    Vocabulary v;
    const auto model = make_unigram({file, "test"}, v);
    for (int i = 0; i < 20; ++i) {
      std::string word, joined;
      for (int64_t n = rng.below(10); n > 0; --n) word += "abcx"[rng.below(4)];
      double score = 0;
      size_t at = 0;
      for (const int32_t id : encode(*model, word)) {
        if (id != 0) {
          ASSERT_EQ(word.substr(at, v.token(id).size()), v.token(id)) << word << " in " << json_text(file);
          score += pieces[v.token(id)], at += v.token(id).size();
          continue;
        }
        ASSERT_EQ(word.substr(at, 1), "x");
        for (; at < word.size() && word[at] == 'x'; ++at) score += lowest - 10;
      }
      ASSERT_EQ(at, word.size());
      ASSERT_NEAR(score, best_score(pieces, word, lowest - 10), 1e-9) << word;
    }
  }
}

TEST(Unigram, UnknownRunsAreOneOrBytes) {
  Json file = json_of(R"({"vocab": [["<unk>", 0], ["a", -1], ["aa", -1.5]], "unk_id": 0})");
  Vocabulary v;
  const auto model = make_unigram({file, "test"}, v);
  EXPECT_EQ(encode(*model, "aaéé你a"), (std::vector<int32_t>{2, 0, 1}));
  for (int b = 0; b < 256; ++b) file["vocab"].push_back({fmt::format("<0x{:02X}>", b), -5});
  file["byte_fallback"] = true;
  Vocabulary w;
  EXPECT_EQ(encode(*make_unigram({file, "test"}, w), "aéa"), (std::vector<int32_t>{1, 3 + 0xc3, 3 + 0xa9, 1}));
}

TEST(Unigram, RefusesWhatCannotBe) {
  for (const char* bad :
       {R"({"vocab": []})", R"({"vocab": [["a"]]})", R"({"vocab": [["a", "b"]]})", R"({"vocab": [["a", 1], ["a", 2]]})",
        R"({"vocab": [["a", 1]], "unk_id": 1})", R"({"vocab": [["a", 1]], "unk_id": -1})", R"({"vocab": {"a": 0}})"}) {
    const Json file = json_of(bad);
    Vocabulary v;
    EXPECT_NE(error_of([&] { make_unigram({file, "the file"}, v); }).find("the file"), std::string::npos) << bad;
  }
}

TEST(ByteLevel, IsABijection) {
  for (int b = 0; b < 256; ++b) {
    const std::string one(1, static_cast<char>(b));
    EXPECT_EQ(byte_level::to_bytes(byte_level::to_chars(one)), one);
  }
  EXPECT_EQ(byte_level::to_chars(" \n"), "ĠĊ");
  EXPECT_EQ(byte_level::to_bytes("你"), std::nullopt);
}

}  // namespace sennit::tokenizers::word_model_test
