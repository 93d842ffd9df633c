#pragma once
#include <functional>
#include <span>

#include "sequence/attention.h"

namespace sennit {

// Attention estimated by features, and exact for a few keys of each query (kernels/corrected_attention.h has the
// equations; Scatterbrain, Chen et al., arXiv:2110.15343).
struct CorrectedInputs {
  const Var &q, &b;              // [N, H K]; logarithms of features [N, H m], undefined where there are none
  std::span<const Var> k, v, a;  // [.., H K], [.., H V], [.., H m]; a is empty where b is undefined
  const Var &mean, &log_sum;     // of the estimate, over keys that those listed are among: [N, H V], [N, H]
};

// Writes the keys of a query of a segment, each once and counted from the segment's first one, and returns how many; at
// most `most`. Called from several threads, forward and backward, it must say the same each time.
using KeySource = std::function<int64_t(size_t segment, int64_t head, int64_t query, int32_t* keys)>;

// The n-th query of a segment and head to be computed, each of them once: those that read the same keys side by side.
using QueryOrder = std::function<int64_t(size_t segment, int64_t head, int64_t n)>;

struct CorrectedOptions {
  int64_t heads, most;
  float scale;
  QueryOrder order = {};  // none: as they stand
};
// -> [N, H V]. When given, `log_totals` [N, H] receives the logarithm of the sum of each query's weights.
Var corrected_attention(const CorrectedInputs& in, std::span<const AttentionSegment> segments,
                        const CorrectedOptions& options, KeySource source, Tensor* log_totals = nullptr);

// Attention to the keys listed alone: o_i = sum_j softmax_j(scale q_i . k_j) v_j.
struct ListedInputs {
  const Var& q;
  std::span<const Var> k, v;
};
Var attend_listed(const ListedInputs& in, std::span<const AttentionSegment> segments, const CorrectedOptions& options,
                  KeySource source);

// Operations of one pair of a query and a key that is listed.
int64_t corrected_pair_flops(int64_t key_dim, int64_t value_dim, int64_t features);

}  // namespace sennit
