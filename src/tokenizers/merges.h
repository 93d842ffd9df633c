#pragma once
#include <string_view>
#include <vector>

#include "base/fields.h"

namespace sennit::tokenizers {

// The "merges" of a byte-pair encoding that ranks tokens instead of pairs, as tiktoken and SentencePiece do: every way
// to make a token of two others, in the order of `tokens`, which go from the one to be made first to the last. Takes
// time in proportion to the tokens' bytes.
Json merges_of(const std::vector<std::string_view>& tokens);

}  // namespace sennit::tokenizers
