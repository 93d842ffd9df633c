#pragma once
#include <span>

#include "autograd/var.h"
#include "sequence/batch.h"

namespace sennit {

// Attention to pairs of tokens (Alman and Song, "How to Capture Higher-order Correlations? Generalizing Matrix Softmax
// Attention to Kronecker Computation", arXiv:2310.04064, definition 1.1): within each segment
//   o_i = sum_{j, l} softmax_{(j, l)}(scale sum_p q_ip k1_jp k2_lp) (v1_j * v2_l)
// head by head, products of values number by number. Each query sees all pairs of its segment.
struct KroneckerOperands {
  Var q, k1, k2;  // [N, heads dk]
  Var v1, v2;     // [N, heads dv]
};
struct KroneckerOptions {
  int64_t heads;
  float scale;  // 1 / dk in the paper
};

// Exact: O(n^3 d) operations and O(n) scratch a thread for a segment of n tokens. [N, heads dv]
Var kronecker_attention(const KroneckerOperands& x, std::span<const Segment> segments, const KroneckerOptions& options);

// With the exponential's polynomial of that degree, section 5: the weights are then sums of products of monomials of
// q_i, k1_j and k2_l, so that pairs are never formed: O(n C(dk + degree, degree) dv). Near the exact form where scores
// are within about 1 of 0. Not differentiated.
Tensor kronecker_polynomial(const KroneckerOperands& x, std::span<const Segment> segments,
                            const KroneckerOptions& options, int64_t degree);

}  // namespace sennit
