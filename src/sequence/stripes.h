#pragma once
#include "sequence/column_mass.h"

namespace sennit {

// SampleAttention (Zhu et al., arXiv:2406.15486), sections 3.2 and 3.3: causal attention over a whole prompt to the
// last keys and to a few columns of keys further back, which are the same for all queries of a head. A strided sample
// of queries attends to everything; the columns that get most of its weight are kept, as few as hold `mass` of all
// weight together with the window. What rows of the sample do not say cannot be known: it is for prompts that are there
// whole, and no query may hang on later ones where that matters.
struct StripeSettings {
  double window = 0.02;   // part of the keys that every query sees before itself, itself included
  double sampled = 0.05;  // part of the queries, the last one always among them
  double mass = 0.95;     // of the sample's weights; 1: everything
};
struct Stripes {
  int64_t window;
  std::vector<std::vector<int32_t>> columns;  // a head; ascending
  // Of the pairs that causal attention computes, over all heads.
  double density(const AttentionSegment& segment) const;
};
// q [N, heads dk], keys [.., kv_heads dk], in f32, without linear biases. Throws Error when a setting is no part of 1.
Stripes sampled_stripes(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                        const SparseAttentionOptions& options, const StripeSettings& settings);

// For sparse_attention() over that one segment.
TileSource striped(Stripes stripes);

}  // namespace sennit
