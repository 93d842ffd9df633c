#pragma once
#include <memory>
#include <string>
#include <vector>

#include "tokenizers/chat_template.h"
#include "tokenizers/tokenizer.h"

namespace sennit {

// What a model's files say about talking to it.
struct DialogueSettings {
  std::string chat_template;       // Jinja; "" where there is none
  std::vector<int32_t> ends = {};  // tokens that end an answer: those of config.json, generation_config.json or GGUF
};

// Of a folder or a GGUF file, with the tokenizer's end of a text. Throws Error where a file is broken.
DialogueSettings dialogue_settings(const std::string& path, const tokenizers::Tokenizer& tokenizer);

}  // namespace sennit
