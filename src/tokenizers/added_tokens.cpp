#include "tokenizers/added_tokens.h"

#include <algorithm>

#include "base/error.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers {
namespace {

// Where the character before `at` starts.
size_t before(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (text[at] & 0xc0) == 0x80);
  return at;
}

bool word_ends_at(std::string_view text, size_t at) {
  if (at == 0) return false;
  size_t begin = before(text, at);
  return unicode::is_word(unicode::next(text, begin));
}

bool word_starts_at(std::string_view text, size_t at) {
  return at < text.size() && unicode::is_word(unicode::next(text, at));
}

}  // namespace

void TokenFinder::add(const AddedToken& token, std::string_view content) {
  if (content.empty() || content.size() > kLongest)
    fail({"tokenizer", fmt::format("an added token of 1 to {} bytes", kLongest),
          fmt::format("{} for id {}", content.size(), token.id)});
  starts_[static_cast<unsigned char>(content[0])] = true;
  uint64_t node = 0;
  for (const char c : content) {
    const auto [edge, fresh] =
        edges_.try_emplace(node << 8 | static_cast<unsigned char>(c), static_cast<int32_t>(ends_.size()));
    if (fresh) ends_.push_back(-1);
    node = static_cast<uint64_t>(edge->second);
  }
  if (ends_[node] >= 0) return;  // the first of equals
  ends_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

TokenFinder::Found TokenFinder::find(std::string_view text, size_t at, bool parse_special) const {
  Found longest;
  uint64_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto edge = edges_.find(node << 8 | static_cast<unsigned char>(text[i]));
    if (edge == edges_.end()) break;
    node = static_cast<uint64_t>(edge->second);
    if (ends_[node] < 0) continue;
    const AddedToken& token = tokens_[ends_[node]];
    if (parse_special || !token.special) longest = {&token, i + 1 - at};
  }
  return longest;
}

TokenFinder::Range TokenFinder::extent(std::string_view text, size_t done, size_t begin, size_t end,
                                       const AddedToken& token) {
  if (token.single_word && (word_ends_at(text, begin) || word_starts_at(text, end))) return {0, 0};
  while (token.lstrip && begin > done) {
    size_t at = before(text, begin);
    const size_t space = at;
    if (!unicode::is_space(unicode::next(text, at))) break;
    begin = space;
  }
  while (token.rstrip && end < text.size()) {
    size_t at = end;
    if (!unicode::is_space(unicode::next(text, at))) break;
    end = at;
  }
  return {std::max(begin, done), end};
}

}  // namespace sennit::tokenizers
