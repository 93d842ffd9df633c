#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"

namespace sennit::tokenizers {

// GPT-2's words (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019, encoder.py).
inline constexpr std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// How a byte-level vocabulary cuts text into words, by the name that tiktoken ("cl100k_base") or GGUF's
// tokenizer.ggml.pre ("llama-bpe") gives it.
struct WordPatterns {
  std::vector<std::string> patterns;       // one after another, each on the pieces of the one before
  bool ignore_merges = false;              // a word that is a token is that token
  bool compose = false;                    // text is composed (NFC) first
};

// Throws Error with `where`, and the nearest name that is known.
WordPatterns word_patterns(const std::string& name, const std::string& where);

// The name that GGUF has for a way to cut words; "" where it has none.
std::string name_of(const WordPatterns& patterns);

// The same as the "pre_tokenizer" of a tokenizer.json: a sequence of Splits and a ByteLevel.
Json pre_tokenizer_of(const WordPatterns& patterns);

}  // namespace sennit::tokenizers
