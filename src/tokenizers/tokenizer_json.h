#pragma once
#include <memory>
#include <string>

#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {

// A tokenizer as Hugging Face's `tokenizers` writes it: normalizer, pre_tokenizer, model, post_processor, decoder and
// added tokens. Ids are those of that library. Text that is not UTF-8 is read as a decoder would give it to that
// library: U+FFFD for each longest broken run. decode() gives bytes as they are and leaves special tokens out.
//
// `text` is the tokenizer.json, `config` the tokenizer_config.json that names the special tokens (bos_token, ...), or
// "" without one: then they are those that go by a well-known name. `where` stands in errors. Throws Error.
std::unique_ptr<Tokenizer> read_tokenizer_json(std::string text, std::string config, const std::string& where);

// A tokenizer.json, with the tokenizer_config.json beside it when there is one.
std::unique_ptr<Tokenizer> load_tokenizer_json(const std::string& path);

}  // namespace sennit::tokenizers
