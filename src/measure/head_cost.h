#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "model/model.h"

// What a token costs a model of grouped queries, by its head counts: "Cost-Optimal Grouped-Query Attention for
// Long-Context LLMs" (Chen et al., arXiv:2503.09579), section 3.
namespace sennit::measure {

// A model of equal blocks of softmax attention over all keys.
struct HeadShape {
  int64_t d_model = 0, blocks = 0, heads = 0, kv_heads = 0, head_dim = 0;
  int64_t parameters = 0;  // all
  int64_t looked_up = 0;   // of these, what a token is not multiplied with: an embedding that is no output map
};
// Throws Error when blocks differ, or their mixer is not softmax attention that sees all keys.
HeadShape head_shape(const ModelSpec& spec, const std::string& where);

// Of one new token that sees `context` tokens, itself included.
struct TokenCost {
  double flops = 0;  // 2 (parameters - looked_up) + 4 blocks heads head_dim context
  double bytes = 0;  // read: parameters weight_bytes + 2 blocks kv_heads head_dim context cache_bytes
};
struct NumberBytes {
  double weight = 4, cache = 4;
};
TokenCost token_cost(const HeadShape& shape, int64_t context, const NumberBytes& bytes = {});

// Seconds of one new token after context - 1 others, the median of `tries`: their keys and values are drawn at random,
// so that no prompt need be computed.
double token_seconds(Model& model, int64_t context, int tries = 33);

// The time of a token from others that were measured:
//   seconds = a blocks + b bytes of weights + c operations of attention + d max(0, bytes - near) + e step,
// where the step is `bytes` above `far` and else 0: what is read over and over leaves a cache altogether once it is too
// much for it. a, ..., e are at least 0, with the least squares of relative errors; `near` and `far`, what the
// processor's caches hold, are those of steps of sqrt(2) that fit best.
struct TimedToken {
  HeadShape shape;
  int64_t context;
  double seconds;
};
class TokenTime {
 public:
  explicit TokenTime(std::span<const TimedToken> measured);
  double seconds(const HeadShape& shape, int64_t context) const;

 private:
  double rates_[5] = {}, near_ = 0, far_ = 0;
};

}  // namespace sennit::measure
