#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {

// tiktoken's rank files: a line for each token, its bytes in base64 and its rank, which is its id. How text is cut into
// words, and which special tokens follow, stands in no such file; both go by the name of the encoding ("cl100k_base"; a
// name of word_patterns.h), which is the file's own name where none is given. Throws Error.
std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, std::string encoding = "");

// The same from the text of such a file.
std::unique_ptr<Tokenizer> read_tiktoken(std::string_view ranks, const std::string& encoding, const std::string& where);

bool looks_like_tiktoken(std::string_view text);

}  // namespace sennit::tokenizers
