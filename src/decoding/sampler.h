#pragma once
#include <span>
#include <vector>

#include "base/fields.h"
#include "base/rng.h"

namespace sennit {

// How the next token is chosen. The filters apply in this order: repetition penalty, temperature, top-k, top-p, min-p.
struct SamplingOptions {
  double temperature = 0.8;  // 0: always the likeliest
  int64_t top_k = 0;         // 0: all
  double top_p = 1;          // the fewest tokens that hold this much probability (Holtzman et al., arXiv:1904.09751)
  double min_p = 0;          // at least this share of the likeliest (Nguyen et al., arXiv:2407.01082)
  double repetition_penalty = 1;  // divides the positive logits of recent tokens, multiplies the negative (Keskar et al., arXiv:1909.05858)
  int64_t penalty_tokens = 64;    // how many tokens count as recent
  int64_t seed = 0;
  Fields fields();
};

// Chooses tokens one after another; the choice at position i is a function of the seed, i and the logits. Allocates
// nothing after the first call.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  // `logits` [vocab] may be changed. `history` are the tokens so far. Throws Error when no logit is finite.
  int32_t choose(std::span<float> logits, std::span<const int32_t> history, int64_t position);

 private:
  struct Candidate {
    float weight;
    int32_t token;
  };
  void penalise(std::span<float> logits, std::span<const int32_t> history);
  SamplingOptions options_;
  Rng rng_;
  std::vector<Candidate> candidates_;
  std::vector<char> seen_;
};

}  // namespace sennit
