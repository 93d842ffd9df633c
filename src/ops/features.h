#pragma once
#include "autograd/var.h"

namespace sennit {

// The second-order Taylor features of each head's d numbers, of which inner products are 1 + s + s^2 / 2 with s that of
// the numbers (BASED, Arora et al., arXiv:2402.18668, eq. 4): 1, x_i, x_i^2 / sqrt 2, and x_i x_j for i < j. [N, H d]
// -> [N, H F], F = taylor_count(d).
inline int64_t taylor_count(int64_t d) {
  return 1 + d + d * (d + 1) / 2;
}
Var taylor_features(const Var& x, int64_t heads);

}  // namespace sennit
