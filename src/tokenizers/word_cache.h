#pragma once
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sennit::tokenizers {

// Remembers the ids of words that were encoded before, up to a bound; many threads may use it at once. Text repeats its
// words, so most of the work of an encoder is a look-up here.
class WordCache {
 public:
  static constexpr size_t kLongest = 48, kMost = 1 << 17;  // bytes of a word, words

  // Adds the ids of `word`: remembered ones, or those that encode(word, ids) adds.
  template <class Encode>
  void append(std::string_view word, std::vector<int32_t>& ids, Encode&& encode) {
    {
      std::shared_lock lock(mutex_);
      const auto known = words_.find(word);
      if (known != words_.end()) {
        ids.insert(ids.end(), known->second.begin(), known->second.end());
        return;
      }
    }
    const size_t before = ids.size();
    encode(word, ids);
    if (word.size() > kLongest) return;
    std::unique_lock lock(mutex_);
    if (words_.size() < kMost)
      words_.try_emplace(std::string(word), ids.begin() + static_cast<int64_t>(before), ids.end());
  }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::shared_mutex mutex_;
  std::unordered_map<std::string, std::vector<int32_t>, Hash, std::equal_to<>> words_;
};

}  // namespace sennit::tokenizers
