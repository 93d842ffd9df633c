#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {

// The vocabulary of RWKV's world models (Peng et al., arXiv:2404.05892, appendix on the tokenizer): tokens are strings
// of bytes, and a text is cut from left to right into the longest that fit. Id 0, which has no bytes, ends a text.

// Reads rwkv_vocab_v20230424.txt: lines of an id, the token as Python writes it ('a' or b'\xff'), and its length in
// bytes.
std::unique_ptr<Tokenizer> read_rwkv_world(std::string_view text, const std::string& where);
// The same from tokens as GGUF has them: bytes with escapes (\n, \xff), by id; those of another type than 1 have none.
std::unique_ptr<Tokenizer> rwkv_world_of_gguf(const std::vector<std::string>& tokens, const std::vector<int32_t>& types,
                                              const std::string& where);

inline constexpr const char* kRwkvFile = "rwkv_vocab_v20230424.txt";
bool looks_like_rwkv_world(std::string_view text);

}  // namespace sennit::tokenizers
