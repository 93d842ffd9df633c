#pragma once
// The register tile of the products; for kernels only (see simd.h).
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

// sums[r][v] += a(p, r) b(p, v) for p = 0, ..., k - 1 in order, each by `term(a, b, sum)`.
template <int R, int V, class Term, class A, class B>
SENNIT_INLINE void add_products(vf (&sums)[R][V], int64_t k, Term&& term, A&& a, B&& b) {
  for (int64_t p = 0; p < k; ++p) {
    vf row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) row[v] = b(p, v);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const vf x = a(p, r);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sums[r][v] = term(x, row[v], sums[r][v]);
    }
  }
}

}  // namespace sennit::kernels::SENNIT_LEVEL
