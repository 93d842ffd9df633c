#pragma once
#include <functional>

#include "data/packer.h"
#include "model/model.h"
#include "tokenizers/tokenizer.h"

namespace sennit::train {

struct Evaluation {
  double loss = 0;           // nats a token
  double bits_per_byte = 0;  // of the text the tokens stand for
  double perplexity = 0;     // e^loss
  int64_t tokens = 0, bytes = 0;
  double seconds = 0;
};

struct EvaluateOptions {
  int64_t rows = 4, length = 512;
  int64_t stride = 0;      // 0: length; smaller gives every token more context
  int64_t max_tokens = 0;  // 0: the whole file
  Context context;
};

// The mean cross-entropy of a token file's targets. `progress(done, total)` counts tokens; returning false stops early.
Evaluation evaluate(Model& model, const tokenizers::Tokenizer& tokenizer, std::shared_ptr<const data::TokenFile> file, const EvaluateOptions& options,
                    const std::function<bool(int64_t, int64_t)>& progress = {});

// The segments of a packed batch as the model takes them.
std::vector<Segment> segments_of(const data::PackedBatch& batch);

}  // namespace sennit::train
