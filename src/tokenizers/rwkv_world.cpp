#include "tokenizers/rwkv_world.h"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/rng.h"
#include "io/atomic_file.h"
#include "tokenizers/vocabulary.h"

namespace sennit::tokenizers {
namespace {

// As Python's repr() of bytes, without its quotes: what GGUF keeps.
std::string escaped(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\\')
      out += "\\\\";
    else if (byte < 0x20 || byte >= 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out;
}

std::optional<uint32_t> hex(std::string_view digits) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return error == std::errc() && end == digits.data() + digits.size() ? std::optional(value) : std::nullopt;
}

// Takes back what escaped() and Python do. In texts \xe9 is a character, in bytes a byte. Nothing for a broken escape.
std::optional<std::string> unescaped(std::string_view text, bool characters) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\\') {
      out += text[at];
      continue;
    }
    if (++at == text.size()) return std::nullopt;
    const char kind = text[at];
    const size_t digits = kind == 'x' ? 2 : characters && kind == 'u' ? 4 : characters && kind == 'U' ? 8 : 0;
    if (digits) {
      const auto code = at + digits < text.size() ? hex(text.substr(at + 1, digits)) : std::nullopt;
      if (!code || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000)) return std::nullopt;
      if (characters)
        append_utf8(out, *code);
      else
        out += static_cast<char>(*code);
      at += digits;
      continue;
    }
    out += kind == 'n' ? '\n' : kind == 'r' ? '\r' : kind == 't' ? '\t' : kind;
  }
  return out;
}

class RwkvWorld final : public Tokenizer {
 public:
  RwkvWorld(std::vector<std::string> tokens, const std::string& where) : tokens_(std::move(tokens)) {
    roots_.assign(256, -1);
    tokens_at_.push_back(-1);
    std::string all;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      all += fmt::format("{} {} ", id, escaped(tokens_[id]));
      if (!tokens_[id].empty()) add(tokens_[id], static_cast<int32_t>(id), where);
    }
    for (int byte = 0; byte < 256; ++byte)
      if (roots_[byte] < 0 || tokens_at_[roots_[byte]] < 0)
        fail({"tokenizer", "a token for each byte", fmt::format("none for 0x{:02x}", byte), where});
    fingerprint_ = hash64(all);
  }

  std::string name() const override { return "rwkv"; }
  int32_t vocab_size() const override { return static_cast<int32_t>(tokens_.size()); }
  SpecialTokens special() const override { return {.bos = 0, .eos = 0}; }
  bool is_special(int32_t id) const override { return check_id(id), tokens_[id].empty(); }
  uint64_t fingerprint() const override { return fingerprint_; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (size_t at = 0; at < text.size();) {
      int32_t node = roots_[static_cast<unsigned char>(text[at])], best = tokens_at_[node];
      size_t end = at + 1;
      for (size_t i = at + 1; i < text.size(); ++i) {
        const auto next = edges_.find(edge(node, text[i]));
        if (next == edges_.end()) break;
        node = next->second;
        if (tokens_at_[node] >= 0) best = tokens_at_[node], end = i + 1;
      }
      ids.push_back(best);
      at = end;
    }
    return ids;
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += bytes(id);
    return text;
  }
  std::string bytes(int32_t id) const override { return check_id(id), tokens_[id]; }
  std::string piece(int32_t id) const override {
    check_id(id);
    return id == 0 ? "<s>" : tokens_[id].empty() ? fmt::format("[PAD{}]", id) : escaped(tokens_[id]);
  }

  void save(const std::string& folder) const override {
    std::string lines;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].empty()) continue;
      std::string quoted;
      for (const char c : escaped(tokens_[id])) quoted += c == '\'' ? "\\'" : std::string(1, c);
      lines += fmt::format("{} b'{}' {}\n", id, quoted, tokens_[id].size());
    }
    io::write_file((std::filesystem::path(folder) / kRwkvFile).string(), lines);
  }

 private:
  static uint64_t edge(int32_t node, char byte) {
    return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
  }

  void add(const std::string& token, int32_t id, const std::string& where) {
    const auto fresh = [this] {
      tokens_at_.push_back(-1);
      return static_cast<int32_t>(tokens_at_.size()) - 1;
    };
    int32_t& root = roots_[static_cast<unsigned char>(token[0])];
    if (root < 0) root = fresh();
    int32_t node = root;
    for (size_t i = 1; i < token.size(); ++i) {
      const auto [at, added] = edges_.try_emplace(edge(node, token[i]), 0);
      if (added) at->second = fresh();
      node = at->second;
    }
    if (tokens_at_[node] >= 0)
      fail({"tokenizer", "each token once",
            fmt::format("`{}` as {} and {}", escaped(token).substr(0, 60), tokens_at_[node], id), where});
    tokens_at_[node] = id;
  }

  std::vector<std::string> tokens_;
  std::vector<int32_t> roots_, tokens_at_;  // nodes by first byte; the token that ends at each node, or -1
  std::unordered_map<uint64_t, int32_t> edges_;
  uint64_t fingerprint_ = 0;
};

// "'a'", "\"it's\"" or "b'\\xff'" as bytes.
std::optional<std::string> literal(std::string_view text) {
  const bool bytes = text.starts_with('b');
  if (bytes) text.remove_prefix(1);
  if (text.size() < 2 || (text.front() != '\'' && text.front() != '"') || text.back() != text.front())
    return std::nullopt;
  return unescaped(text.substr(1, text.size() - 2), !bytes);
}

struct Line {
  int64_t id = 0, length = 0;
  std::string_view token;
};
std::optional<Line> parse_line(std::string_view line) {
  Line l;
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == line.npos || last <= first) return std::nullopt;
  const auto number = [](std::string_view text, int64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
  };
  if (!number(line.substr(0, first), l.id) || !number(line.substr(last + 1), l.length)) return std::nullopt;
  l.token = line.substr(first + 1, last - first - 1);
  return l;
}

}  // namespace

bool looks_like_rwkv_world(std::string_view text) {
  const auto line = parse_line(text.substr(0, text.find('\n')));
  return line && literal(line->token).has_value();
}

std::unique_ptr<Tokenizer> read_rwkv_world(std::string_view text, const std::string& where) {
  constexpr int64_t kLeastLine = 8;  // bytes
  const int64_t ids = Vocabulary::most_ids(std::ssize(text) / kLeastLine);
  std::vector<std::string> tokens(1);
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    const auto l = parse_line(line);
    const auto bytes = l ? literal(l->token) : std::nullopt;
    if (!bytes || l->id < 1 || l->id >= ids || bytes->empty() || std::ssize(*bytes) != l->length)
      fail({"tokenizer",
            fmt::format("an id from 1 to {}, a token as Python writes it, and its length", ids - 1),
            fmt::format("`{}`", line.substr(0, 60)), fmt::format("{}:{}", where, number)});
    if (l->id >= std::ssize(tokens)) tokens.resize(static_cast<size_t>(l->id) + 1);
    tokens[static_cast<size_t>(l->id)] = *bytes;
  }
  return std::make_unique<RwkvWorld>(std::move(tokens), where);
}

std::unique_ptr<Tokenizer> rwkv_world_of_gguf(const std::vector<std::string>& tokens, const std::vector<int32_t>& types,
                                              const std::string& where) {
  if (tokens.empty() || std::ssize(tokens) > Vocabulary::kMostIds || (!types.empty() && types.size() != tokens.size()))
    fail({"tokenizer", fmt::format("1 to {} tokens and a type for each", Vocabulary::kMostIds),
          fmt::format("{} and {}", tokens.size(), types.size()), where});
  std::vector<std::string> all(tokens.size());
  for (size_t id = 1; id < tokens.size(); ++id) {
    if (!types.empty() && types[id] != 1) continue;
    const auto bytes = unescaped(tokens[id], false);
    if (!bytes) fail({"tokenizer", "bytes with whole escapes", fmt::format("`{}`", tokens[id].substr(0, 60)), where});
    all[id] = *bytes;
  }
  return std::make_unique<RwkvWorld>(std::move(all), where);
}

}  // namespace sennit::tokenizers
