#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tokenizers/json_part.h"

namespace sennit::tokenizers {

// The "decoder" of a tokenizer.json, token by token: what each adds to the text depends on it and on whether it is the
// first one. Bytes are given as they are, so that a character may come in parts.
class Decoder {
 public:
  Decoder();  // of a file that has none: tokens stand apart by spaces
  // Throws Error for a type that is not known, and for one that cannot work token by token.
  explicit Decoder(const JsonPart& part);

  std::string apply(std::string token, bool first) const;

 private:
  using Step = std::function<std::string(std::string token, bool first)>;
  void add(const JsonPart& part, int depth);
  void add_strip(const JsonPart& part);

  std::vector<Step> steps_;
  bool fused_ = false;  // what follows looks at the whole text
};

}  // namespace sennit::tokenizers
