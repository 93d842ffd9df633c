#pragma once
#include <complex>
#include <cstdint>
#include <vector>

namespace sennit::mixers {

// HiPPO-LegS, the state space that keeps its whole input as Legendre polynomials, as diagonal plus rank one (Gu et al.,
// arXiv:2111.00396, theorem 1 and appendix C): x' = (diag(lambda) - p p^*) x + b u in the basis of eigenvectors of its
// normal part. Only the half of the conjugate pairs whose frequencies are positive, from the lowest on.
struct Dplr {
  std::vector<std::complex<double>> lambda, p, b;  // [modes] each, of 2 modes states
};
Dplr hippo_legs(int64_t modes);

}  // namespace sennit::mixers
