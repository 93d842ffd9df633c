#pragma once
#include <functional>
#include <string>

#include "decoding/sampler.h"
#include "decoding/score.h"
#include "model/model.h"
#include "tokenizers/tokenizer.h"

namespace sennit {

// One sequence that grows: a model, its state, and the logits after the last token.
class Session {
 public:
  // An empty sequence; keys and values are kept in the context's format. Throws Error where the model, or a mixer of it, sees
  // what comes later: such a one cannot go on with a text.
  Session(Model& model, Context context) : model_(&model), context_(context), state_(context.cache) {
    model.require_causal("run");
    check_predicts(model.spec(), "model");
  }

  // Reads tokens, in pieces of at most `piece` (0: of piece()), and returns the logits after the last [vocab]; they may be
  // changed.
  std::span<float> feed(std::span<const int32_t> tokens, int64_t piece = 0);
  // The same, and appends the score of each token, given those before it; the first of a text has none.
  std::span<float> feed(std::span<const int32_t> tokens, int64_t top, std::vector<TokenScore>& scores);

  // The logits after the last token read; there are none before the first feed().
  bool has_logits() const { return logits_.defined(); }
  std::span<float> logits() { return logits_.value().span(); }

  // How many of `tokens` that wait are best read at once: all, where the model reads whole prompts otherwise than pieces.
  int64_t piece(int64_t tokens) const;

  SequenceState& state() { return state_; }
  void restore(SequenceState state) { state_ = std::move(state); }
  Session snapshot() const {  // an independent copy
    Session s(*model_, context_);
    s.state_ = state_.clone();
    if (logits_.defined()) s.logits_ = Var(logits_.value().clone());
    return s;
  }

 private:
  Model* model_;
  Context context_;
  SequenceState state_;
  Var logits_;
};

struct GenerationOptions {
  SamplingOptions sampling = {};
  int64_t max_tokens = 256;
  std::vector<std::string> stop = {};     // texts that end the answer; they are not part of it
  std::vector<int32_t> stop_tokens = {};  // ids that do
  int64_t scores = -1;                    // score each token read and chosen, and so many of the likeliest; -1: none
  // Called between pieces of a long prompt with the tokens read and all of them; returning false ends it there.
  std::function<bool(int64_t, int64_t)> reading = {};
};

enum class StopReason { max_tokens, stop_text, stop_token, cancelled };
const char* to_string(StopReason reason);

struct GenerationReport {
  StopReason reason = StopReason::max_tokens;
  int64_t prompt_tokens = 0, tokens = 0;
  double prompt_seconds = 0, seconds = 0;
  std::vector<TokenScore> prompt_scores = {}, scores = {};  // where they were asked for
};

// Continues what `history` holds that the session has not read yet (its last token, after an earlier answer), followed
// by the prompt; with neither, what the session has read. `emit` gets whole UTF-8 characters as soon as no stop text
// can begin in them; it returns false to cancel. `history` gains the tokens read and chosen; all of it counts for
// penalties and positions.
GenerationReport generate(Session& session, const tokenizers::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                          const GenerationOptions& options, std::vector<int32_t>& history,
                          const std::function<bool(std::string_view text)>& emit);

}  // namespace sennit
