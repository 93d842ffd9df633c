#pragma once
#include <memory>

#include "tokenizers/json_part.h"
#include "tokenizers/pieces.h"

namespace sennit::tokenizers {

// A step that cuts text into the words that a model sees.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Pieces& pieces) const = 0;
};

struct PreTokenizerOptions {
  // Leave bytes as they are where the last step would write them in the byte-level alphabet.
  bool keep_bytes = false;
};

// The "pre_tokenizer" of a tokenizer.json. Throws Error for a type that is not known.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const JsonPart& part, PreTokenizerOptions options, int depth = 0);

// Whether the last step writes bytes in the byte-level alphabet.
bool ends_in_bytes(const JsonPart& part);

}  // namespace sennit::tokenizers
