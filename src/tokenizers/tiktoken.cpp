#include "tokenizers/tiktoken.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "tokenizers/base64.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/merges.h"
#include "tokenizers/tokenizer_json.h"
#include "tokenizers/vocabulary.h"
#include "tokenizers/word_patterns.h"

namespace sennit::tokenizers {
namespace {

struct Ranked {
  std::string bytes;
  int64_t rank = -1;
};

// A line, without its end: "IQ== 0". Nothing when it is none.
std::optional<Ranked> read_line(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == line.npos || space == 0) return std::nullopt;
  Ranked r;
  const auto [end, error] = std::from_chars(line.data() + space + 1, line.data() + line.size(), r.rank);
  auto bytes = from_base64(line.substr(0, space));
  if (error != std::errc() || end != line.data() + line.size() || r.rank < 0 || !bytes || bytes->empty())
    return std::nullopt;
  r.bytes = std::move(*bytes);
  return r;
}

std::string_view first_line(std::string_view text) {
  std::string_view line = text.substr(0, text.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

constexpr size_t kLongestToken = 1024;

std::vector<Ranked> read_ranks(std::string_view text, const std::string& where) {
  std::vector<Ranked> tokens;
  for (int64_t number = 1; !text.empty(); ++number) {
    const std::string_view line = first_line(text);
    text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
    if (line.empty()) continue;
    auto r = read_line(line);
    if (!r || r->bytes.size() > kLongestToken || r->rank >= Vocabulary::kMostIds)
      fail({"tiktoken",
            fmt::format("a token of at most {} bytes in base64 and its rank below {}", kLongestToken,
                        Vocabulary::kMostIds),
            fmt::format("`{}`", line.substr(0, 60)), fmt::format("{}:{}", where, number)});
    tokens.push_back(std::move(*r));
  }
  std::sort(tokens.begin(), tokens.end(), [](const Ranked& a, const Ranked& b) { return a.rank < b.rank; });
  if (const int64_t most = Vocabulary::most_ids(std::ssize(tokens)); !tokens.empty() && tokens.back().rank >= most)
    fail({"tiktoken", fmt::format("ranks below {} for {} tokens", most, tokens.size()), fmt::format("{}", tokens.back().rank), where});
  return tokens;
}

struct Special {
  std::string_view encoding, token;
  int64_t id;
};
constexpr Special kSpecial[] = {
    {"gpt2", "<|endoftext|>", 50256},
    {"r50k_base", "<|endoftext|>", 50256},
    {"p50k_base", "<|endoftext|>", 50256},
    {"p50k_edit", "<|endoftext|>", 50256},
    {"p50k_edit", "<|fim_prefix|>", 50281},
    {"p50k_edit", "<|fim_middle|>", 50282},
    {"p50k_edit", "<|fim_suffix|>", 50283},
    {"cl100k_base", "<|endoftext|>", 100257},
    {"cl100k_base", "<|fim_prefix|>", 100258},
    {"cl100k_base", "<|fim_middle|>", 100259},
    {"cl100k_base", "<|fim_suffix|>", 100260},
    {"cl100k_base", "<|endofprompt|>", 100276},
    {"o200k_base", "<|endoftext|>", 199999},
    {"o200k_base", "<|endofprompt|>", 200018},
    {"o200k_harmony", "<|startoftext|>", 199998},
    {"o200k_harmony", "<|endoftext|>", 199999},
    {"o200k_harmony", "<|return|>", 200002},
    {"o200k_harmony", "<|constrain|>", 200003},
    {"o200k_harmony", "<|channel|>", 200005},
    {"o200k_harmony", "<|start|>", 200006},
    {"o200k_harmony", "<|end|>", 200007},
    {"o200k_harmony", "<|message|>", 200008},
    {"o200k_harmony", "<|call|>", 200012},
};

}  // namespace

bool looks_like_tiktoken(std::string_view text) {
  return read_line(first_line(text.substr(0, 4096))).has_value();
}

std::unique_ptr<Tokenizer> read_tiktoken(std::string_view ranks, const std::string& encoding,
                                         const std::string& where) {
  const WordPatterns patterns = word_patterns(encoding, where);
  const std::vector<Ranked> ranked = read_ranks(ranks, where);
  std::vector<std::string> tokens;
  Json vocabulary = Json::object();
  for (const Ranked& r : ranked) {
    tokens.push_back(byte_level::to_chars(r.bytes));
    io::append_member(vocabulary, tokens.back(), r.rank);
  }
  Json added = Json::array();
  for (const Special& s : kSpecial)
    if (s.encoding == encoding)
      added.push_back({{"id", s.id}, {"content", s.token}, {"normalized", false}, {"special", true}});
  Json file = {{"version", "1.0"}, {"added_tokens", added}};
  if (patterns.compose) file["normalizer"] = {{"type", "NFC"}};
  file["pre_tokenizer"] = pre_tokenizer_of(patterns);
  file["decoder"] = {{"type", "ByteLevel"}};
  // tiktoken looks a word up before it merges.
  file["model"] = {{"type", "BPE"},
                   {"ignore_merges", true},
                   {"vocab", std::move(vocabulary)},
                   {"merges", merges_of({tokens.begin(), tokens.end()})}};
  return read_tokenizer_json(json_text(file), "", where);
}

std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, std::string encoding) {
  if (encoding.empty()) encoding = std::filesystem::path(path).stem().string();
  return read_tiktoken(io::MappedFile::open(path)->text(), encoding, path);
}

}  // namespace sennit::tokenizers
