#pragma once
#include <cstdint>
#include <vector>

#include "tokenizers/json_part.h"

namespace sennit::tokenizers {

// The special tokens that stand before and behind a text.
struct Frame {
  std::vector<int32_t> before, after;
};

// The "post_processor" of a tokenizer.json, for a single text. Throws Error for a type that is not known, and for ids
// outside a vocabulary of `size`.
Frame read_frame(const JsonPart& part, int32_t size);

}  // namespace sennit::tokenizers
