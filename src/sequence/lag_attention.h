#pragma once
#include <span>

#include "kernels/lag_attention.h"
#include "sequence/attention.h"

namespace sennit {

using kernels::LagRule;

// Attention whose weights hang on distances through two tables (kernels/lag_attention.h has the equations). q [N, heads
// dk], keys [.., heads dk], values [.., heads dv]; b, g [2 reach + 1, heads], of distances -reach to reach, key less
// query. -> [N, heads dv]
struct LagAttentionOptions {
  int64_t heads;
  LagRule rule = LagRule::softmax;
  float scale = 1;
  bool causal = true;
};
Var lag_attention(const Var& q, std::span<const Var> keys, std::span<const Var> values, const Var& b, const Var& g,
                  std::span<const AttentionSegment> segments, const LagAttentionOptions& options);

}  // namespace sennit
