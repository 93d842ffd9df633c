#pragma once
#include <memory>
#include <string>

#include "tokenizers/tokenizer.h"

namespace sennit::tokenizers {

// Stands in the training settings inside a model that train_sentencepiece() made: nothing is normalised, no space is
// put before the text, and every byte has a piece.
inline constexpr const char* kLosslessMark = "sennit-lossless";

// Stops the library's log lines on stderr, for the whole process.
void quiet_sentencepiece();

// Writes a serialised model into `folder` and opens it.
std::unique_ptr<Tokenizer> save_model(std::string model, const std::string& folder);

}  // namespace sennit::tokenizers
