#pragma once
#include <string>
#include <vector>

#include "model/model.h"

namespace sennit {

// How the last hidden rows of a text become one: their mean, the first (of encoders, which put a token of that purpose
// there), or the last.
enum class Pooling { mean, cls, last };
Pooling parse_pooling(const std::string& name);

// What a folder (sentence-transformers' 1_Pooling/config.json) or a GGUF file says of it; mean where it says nothing.
// Throws Error for a kind that is none of these.
Pooling stored_pooling(const std::string& path);

struct EmbeddingOptions {
  Pooling pooling = Pooling::mean;
  bool normalize = false;  // to length 1
  Context context = {};
};
// d_model numbers for each text of at least one token. Texts are read together, packed; the numbers of one do not
// depend on the others (in exact mode to the bit). Throws Error for an empty text.
std::vector<std::vector<float>> embed(Model& model, const std::vector<std::vector<int32_t>>& texts,
                                      const EmbeddingOptions& options);

}  // namespace sennit
