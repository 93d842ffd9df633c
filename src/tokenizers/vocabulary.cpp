#include "tokenizers/vocabulary.h"

#include "base/error.h"

namespace sennit::tokenizers {

void Vocabulary::add(int64_t id, std::string token, const std::string& where) {
  if (id < 0 || id >= kMostIds)
    fail({"tokenizer", fmt::format("ids from 0 to {}", kMostIds - 1), fmt::format("{} for `{}`", id, token), where});
  if (id >= size()) tokens_.resize(id + 1, nullptr);
  const auto known = ids_.find(token);
  if (known != ids_.end() && known->second == id) return;
  if (known != ids_.end())
    fail({"tokenizer", "one id for a token", fmt::format("{} and {} for `{}`", known->second, id, token), where});
  if (tokens_[id] != nullptr)
    fail({"tokenizer", "one token for an id", fmt::format("`{}` and `{}` for {}", *tokens_[id], token, id), where});
  texts_.push_back(std::move(token));
  tokens_[id] = &texts_.back();
  ids_.emplace(texts_.back(), static_cast<int32_t>(id));
}

int32_t Vocabulary::find(std::string_view token) const {
  const auto it = ids_.find(token);
  return it == ids_.end() ? -1 : it->second;
}

int32_t Vocabulary::need(std::string_view token, const std::string& role, const std::string& where) const {
  const int32_t id = find(token);
  if (id < 0)
    fail({"tokenizer", fmt::format("{} in the vocabulary", role), fmt::format("no `{}`", token.substr(0, 100)), where});
  return id;
}

const std::string& Vocabulary::token(int32_t id) const {
  static const std::string none;
  return has(id) ? *tokens_[id] : none;
}

}  // namespace sennit::tokenizers
