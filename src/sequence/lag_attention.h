#pragma once
#include <span>

#include "kernels/lag_attention.h"
#include "sequence/attention.h"

namespace sennit {

using kernels::LagRule;

// Attention whose weights hang on distances through two tables (kernels/lag_attention.h has the equations, and
// kernels/pair_filter.h those of tables with an entry for each pair of a head's channels). q [N, heads dk], keys [..,
// heads dk], values [.., heads dv]; b, g [2 reach + 1, heads], or [2 reach + 1, heads dk / 2], of distances -reach to
// reach, key less query. -> [N, heads dv]
struct LagAttentionOptions {
  int64_t heads;
  LagRule rule = LagRule::softmax;
  float scale = 1;
  bool causal = true;
  bool pairs = false;  // an entry for each pair; dv = dk
};
Var lag_attention(const Var& q, std::span<const Var> keys, std::span<const Var> values, const Var& b, const Var& g,
                  std::span<const AttentionSegment> segments, const LagAttentionOptions& options);

}  // namespace sennit
