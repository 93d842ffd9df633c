#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "base/progress.h"
#include "tokenizers/tokenizer.h"

namespace sennit::data {

struct TokenizeReport {
  int64_t bytes = 0, documents = 0, tokens = 0;
};

// Turns text files into one token file. A .jsonl file has one document a line, the text in "text"; in any other file a
// line that is a single form feed stands between documents. Works on all threads; the result does not depend on how
// many. Progress counts bytes of input. Throws Error when there is nothing to read.
TokenizeReport tokenize_files(std::span<const std::string> inputs, const std::string& output,
                              const tokenizers::Tokenizer& tokenizer, const Progress& progress = {});

// Each of train, valid and test that `input` has as .txt or .jsonl, into <output>/<split>.tokens, and the tokenizer
// itself beside them. Train must be there.
TokenizeReport tokenize_folder(const std::string& input, const std::string& output,
                               const tokenizers::Tokenizer& tokenizer, const Progress& progress = {});

}  // namespace sennit::data
