#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizers/vocabulary.h"

namespace sennit::tokenizers {

// A token that is found in the text before anything else looks at it.
struct AddedToken {
  int32_t id = -1;
  std::string content = {};
  bool single_word = false;  // only where no word goes on before or behind it
  bool lstrip = false;       // takes the spaces before it
  bool rstrip = false;       // takes the spaces behind it
  bool normalized = true;    // looked for in the normalized text, not in the text as it is
  bool special = false;      // one that plays a part, such as the end of a turn; made from text only when asked
};

// Finds tokens in a text: at each place the longest, from left to right.
class TokenFinder {
 public:
  static constexpr size_t kLongest = 1024;  // bytes of a token

  // Throws Error when `content` is empty or too long.
  void add(const AddedToken& token, std::string_view content);

  // Calls text(part) for what lies between tokens and token(id) for tokens. Special ones are found only with
  // `parse_special`.
  template <class Text, class Token>
  void split(std::string_view text, bool parse_special, Text&& between, Token&& token) const {
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const Found f = starts_[static_cast<unsigned char>(text[at])] ? find(text, at, parse_special) : Found{};
      if (f.token == nullptr) {
        ++at;
        continue;
      }
      at += f.length;
      const Range range = extent(text, done, at - f.length, at, *f.token);
      if (range.end == 0) continue;
      if (range.begin > done) between(text.substr(done, range.begin - done));
      token(f.token->id);
      done = at = range.end;
    }
    if (done < text.size()) between(text.substr(done));
  }

 private:
  struct Found {
    const AddedToken* token = nullptr;
    size_t length = 0;
  };
  struct Range {
    size_t begin, end;  // end 0: it may not stand there
  };
  Found find(std::string_view text, size_t at, bool parse_special) const;
  static Range extent(std::string_view text, size_t done, size_t begin, size_t end, const AddedToken& token);

  std::vector<AddedToken> tokens_;
  std::unordered_map<uint64_t, int32_t> edges_;  // of a trie: node * 256 + byte -> node
  std::vector<int32_t> ends_ = {-1};             // node -> index of its token
  std::array<bool, 256> starts_{};
};

}  // namespace sennit::tokenizers
