#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {

// What a GGUF file says of its tokenizer: the values of its keys tokenizer.ggml.<name>.
struct GgufVocabulary {
  std::string model = {};  // "gpt2", "llama", "bert", "t5" or "rwkv"
  std::string pre = {};    // for gpt2: how text is cut into words, "llama-bpe"; "" and "default": as GPT-2 does
  std::vector<std::string> tokens = {};
  std::vector<int32_t> types =
      {};  // token_type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; or empty
  std::vector<float> scores = {};                  // for llama and t5
  std::vector<std::string> merges = {};            // for gpt2: "a b"
  int64_t bos = -1, eos = -1, unk = -1, pad = -1;  // *_token_id; for bert bos and eos are [CLS] and [SEP]
  std::optional<bool> add_bos = {}, add_eos = {}, add_space_prefix = {};
  std::string precompiled_charsmap = {};  // for t5, its bytes
};

// The tokenizer that these make, which save() writes as a tokenizer.json. Throws Error with `where`.
std::unique_ptr<Tokenizer> tokenizer_of_gguf(const GgufVocabulary& vocabulary, const std::string& where);

}  // namespace sennit::tokenizers
