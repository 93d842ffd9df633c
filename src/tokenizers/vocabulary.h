#pragma once
#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sennit::tokenizers {

// Tokens by id and ids by token. Ids may leave gaps; a token has one id, an id one token.
class Vocabulary {
 public:
  static constexpr int64_t kMostIds = int64_t{1} << 22;
  // Of a file of so many tokens: some ids may be left out, but few tokens have no far ones.
  static constexpr int64_t most_ids(int64_t tokens) { return std::min(kMostIds, 2 * tokens + 4096); }

  // Throws Error with `where` when the id is out of range or taken, or when the token has another id.
  void add(int64_t id, std::string token, const std::string& where);
  int32_t find(std::string_view token) const;  // -1: none
  // As find(), but throws Error when there is none; `role` says what the token is for.
  int32_t need(std::string_view token, const std::string& role, const std::string& where) const;

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // the largest id + 1
  bool has(int32_t id) const { return tokens_[id] != nullptr; }
  const std::string& token(int32_t id) const;  // "" in a gap

 private:
  std::deque<std::string> texts_;  // whose addresses stay
  std::vector<const std::string*> tokens_;
  std::unordered_map<std::string_view, int32_t> ids_;
};

}  // namespace sennit::tokenizers
