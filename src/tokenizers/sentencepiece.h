#pragma once
#include <memory>
#include <span>
#include <string>

#include "base/fields.h"
#include "base/progress.h"
#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {

inline constexpr const char* kTokenizerFile = "sennit_tokenizer.json";

// SentencePiece models (Kudo & Richardson, arXiv:1808.06226). A foreign model encodes and decodes exactly as the
// library that made it. A model that train_sentencepiece() made is lossless: decode(encode(x)) == x for any bytes x.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path);

struct SentencePieceOptions {
  int64_t vocab_size = 8192;
  int64_t max_bytes = int64_t{32} << 20;  // of text to learn from; more is sampled line by line
  int64_t seed = 1;

  Fields fields();
};

// Learns a byte-pair encoding from text files and writes tokenizer.model into `folder`. Single-threaded: the same text
// and options give the same file. Ids: 0 unknown, 1 begin, 2 end of text, 3-258 the bytes, 259 the newline, then what
// was learnt. Numbers are split into digits and nothing is normalised. Throws Error when the text is too small for the
// vocabulary.
std::unique_ptr<Tokenizer> train_sentencepiece(std::span<const std::string> files, const std::string& folder,
                                               SentencePieceOptions options, const Progress& progress = {});

}  // namespace sennit::tokenizers
