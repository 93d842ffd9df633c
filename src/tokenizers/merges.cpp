#include "tokenizers/merges.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

namespace sennit::tokenizers {

Json merges_of(const std::vector<std::string_view>& tokens) {
  std::unordered_map<std::string_view, size_t> ranks;
  for (size_t rank = 0; rank < tokens.size(); ++rank) ranks.emplace(tokens[rank], rank);
  struct Pair {
    size_t left, right;  // ranks
  };
  Json merges = Json::array();
  std::vector<Pair> pairs;
  for (const std::string_view token : tokens) {
    pairs.clear();
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if ((token[cut] & 0xc0) == 0x80) continue;
      const auto left = ranks.find(token.substr(0, cut)), right = ranks.find(token.substr(cut));
      if (left != ranks.end() && right != ranks.end()) pairs.push_back({left->second, right->second});
    }
    std::sort(pairs.begin(), pairs.end(),
              [](const Pair& a, const Pair& b) { return std::pair(a.left, a.right) < std::pair(b.left, b.right); });
    for (const Pair& p : pairs) merges.push_back({tokens[p.left], tokens[p.right]});
  }
  return merges;
}

}  // namespace sennit::tokenizers
