#include "decoding/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/loss.h"

namespace sennit {

Fields SamplingOptions::fields() {
  return {{"temperature", &temperature, "0 always takes the likeliest token", {.min = 0, .max = 100}},
          {"top_k", &top_k, "choose among the k likeliest; 0: all", {.min = 0, .max = 1 << 24}},
          {"top_p", &top_p, "choose among the fewest tokens that hold this much probability", {.min = 1e-6, .max = 1}},
          {"min_p", &min_p, "leave out tokens below this share of the likeliest", {.min = 0, .max = 1}},
          {"repetition_penalty", &repetition_penalty, "above 1 makes recent tokens less likely", {.min = 0.01, .max = 100}},
          {"penalty_tokens", &penalty_tokens, "how many tokens count as recent", {.min = 0, .max = 1 << 20}},
          {"seed", &seed, "of the random choices", {.min = 0, .max = 9e15}}};
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), rng_(static_cast<uint64_t>(options.seed), hash64("sampler")) {}

void Sampler::penalise(std::span<float> logits, std::span<const int32_t> history) {
  if (options_.repetition_penalty == 1) return;
  const float penalty = static_cast<float>(options_.repetition_penalty);
  const size_t recent = std::min(history.size(), static_cast<size_t>(options_.penalty_tokens));
  seen_.assign(logits.size(), 0);
  for (const int32_t t : history.last(recent)) {
    if (t < 0 || t >= std::ssize(logits) || seen_[t]) continue;
    seen_[t] = 1;
    logits[t] = logits[t] > 0 ? logits[t] / penalty : logits[t] * penalty;
  }
}

int32_t Sampler::choose(std::span<float> logits, std::span<const int32_t> history, int64_t position) {
  penalise(logits, history);
  const auto best = static_cast<int32_t>(kernels::loss().argmax(logits.data(), std::ssize(logits)));
  if (!std::isfinite(logits[best])) fail({"sampling", "a finite logit", std::to_string(logits[best])});
  if (options_.temperature == 0 || options_.top_k == 1) return best;

  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const float w = std::exp((logits[i] - logits[best]) / static_cast<float>(options_.temperature));
    if (w > 0) candidates_.push_back({w, static_cast<int32_t>(i)});
  }
  const auto likelier = [](const Candidate& a, const Candidate& b) { return a.weight > b.weight || (a.weight == b.weight && a.token < b.token); };
  if (options_.top_k > 0 && options_.top_k < std::ssize(candidates_)) {
    std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(), likelier);
    candidates_.resize(options_.top_k);
  }
  double total = 0;
  if (options_.top_p < 1) {
    std::sort(candidates_.begin(), candidates_.end(), likelier);
    for (const Candidate& c : candidates_) total += c.weight;
    double held = 0;
    size_t count = 0;
    while (count < candidates_.size() && held < options_.top_p * total) held += candidates_[count++].weight;
    candidates_.resize(count);
  }
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < static_cast<float>(options_.min_p); });
  total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  double left = rng_.uniform_at(static_cast<uint64_t>(position)) * total;
  for (const Candidate& c : candidates_)
    if ((left -= c.weight) < 0) return c.token;
  return candidates_.back().token;
}

}  // namespace sennit
