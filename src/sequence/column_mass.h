#pragma once
#include <span>
#include <vector>

#include "sequence/sparse_attention.h"

namespace sennit {

// Queries first, first + step, ..., `count` of them.
struct Stride {
  int64_t first, step, count;
};

// Softmax weights of some queries, summed key by key: which keys matter, told by a sample of the rows of causal
// attention.
class ColumnMass {
 public:
  // q [N, heads dk] and keys [.., kv_heads dk] of one head and segment, which outlive it.
  ColumnMass(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
             const SparseAttentionOptions& options, int64_t head);

  static int64_t scratch_floats(const AttentionSegment& segment, int64_t dk);
  // Adds to sums[j] the weights that the queries give to key j where it stands `near` places before them or further.
  void add(const Stride& queries, int64_t near, double* sums, float* scratch) const;

 private:
  const float *q_, *k_;
  int64_t q_stride_, k_stride_, dim_, keys_, offset_;
  float scale_;
};

// The heaviest places that together weigh `wanted`, as few as can be, or all that weigh anything; ascending.
std::vector<int32_t> heaviest(std::span<const double> weights, double wanted);

}  // namespace sennit
