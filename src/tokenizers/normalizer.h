#pragma once
#include <memory>
#include <string>

#include "tokenizers/json_part.h"

namespace sennit::tokenizers {

// A step that changes text before it is cut into words. Texts are UTF-8 without faults.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Throws Error when a step makes more than `most` bytes.
  virtual std::string apply(std::string text, size_t most) const = 0;
};

// The "normalizer" of a tokenizer.json. Throws Error for a type that is not known.
std::unique_ptr<Normalizer> make_normalizer(const JsonPart& part, int depth = 0);

// "Precompiled": a table of replacements in SentencePiece's form (a Darts double array over UTF-8, then the texts that
// it points into), in base64.
std::unique_ptr<Normalizer> make_precompiled(const JsonPart& part);

}  // namespace sennit::tokenizers
