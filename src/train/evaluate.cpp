#include "train/evaluate.h"

#include <chrono>
#include <cmath>
#include <numbers>

#include "kernels/elementwise.h"

namespace sennit::train {

std::vector<Segment> segments_of(const data::PackedBatch& batch) {
  std::vector<Segment> segments;
  for (const auto& s : batch.segments) segments.push_back({s.begin, s.length, 0, nullptr});
  return segments;
}

Evaluation evaluate(Model& model, const tokenizers::Tokenizer& tokenizer, std::shared_ptr<const data::TokenFile> file, const EvaluateOptions& options,
                    const std::function<bool(int64_t, int64_t)>& progress) {
  model.require_causal("eval");
  NoGrad off;
  const auto start = std::chrono::steady_clock::now();
  std::vector<int64_t> token_bytes(tokenizer.vocab_size());
  for (int32_t i = 0; i < tokenizer.vocab_size(); ++i) token_bytes[i] = std::ssize(tokenizer.bytes(i));
  const int64_t total = options.max_tokens > 0 ? std::min(options.max_tokens, file->tokens()) : file->tokens();
  const data::EvaluationBatches batches(file, options.rows, options.length, options.stride > 0 ? options.stride : options.length);
  Evaluation e;
  double nats = 0;
  for (int64_t i = 0; i < batches.count() && e.tokens < total; ++i) {
    const data::PackedBatch batch = batches.at(i);
    std::vector<Segment> segments = segments_of(batch);
    std::vector<SequenceState> kept;  // a format of few bits shows where keys and values are read from states
    for (size_t s = 0; s < segments.size() && options.context.cache != CacheFormat::f32; ++s)
      kept.emplace_back(options.context.cache);
    for (size_t s = 0; s < kept.size(); ++s) segments[s].state = &kept[s];
    Tensor losses;
    model.loss(model.hidden(batch.tokens, {segments, &options.context}), batch.targets, options.context, &losses);
    nats += kernels::elementwise().sum(losses.data(), losses.elements());
    for (const int32_t t : batch.targets)
      if (t >= 0) ++e.tokens, e.bytes += token_bytes[t];
    if (progress && !progress(std::min(e.tokens, total), total)) break;
  }
  e.loss = e.tokens ? nats / static_cast<double>(e.tokens) : 0;
  e.perplexity = std::exp(e.loss);
  e.bits_per_byte = e.bytes ? nats / std::numbers::ln2 / static_cast<double>(e.bytes) : 0;
  e.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return e;
}

}  // namespace sennit::train
