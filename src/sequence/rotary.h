#pragma once
#include <span>

#include "sequence/batch.h"

namespace sennit {

// Rotary position embedding (RoFormer, Su et al., arXiv:2104.09864) of x [N, heads d]: pair i of the first `dims` numbers
// of each head turns by position * base^(-2i/dims). Halves pairs i with i + dims/2, interleaved 2i with 2i + 1.
struct RotaryOptions {
  int64_t heads;
  int64_t dims;  // even, at most the head's size
  double base = 10000;
  bool interleaved = false;
  std::span<const double> frequencies = {};  // dims / 2 angles to turn by instead of base^(-2i/dims); they outlive the call
  double magnitude = 1;                      // multiplies what turned
};
Var rotary(const Var& x, std::span<const Segment> segments, const RotaryOptions& options);

// The same with any two factors for each pair (a, b) of a row, (a c - b s, a s + b c): a turn where c^2 + s^2 = 1.
struct PairFactors {
  Tensor cos, sin;  // c and s, [N, pairs]
};
// Heads of x [N, heads d] share `factors` by equal runs, one entry a run.
Var multiply_pairs(const Var& x, std::span<const PairFactors> factors, int64_t heads, bool interleaved = false);

}  // namespace sennit
