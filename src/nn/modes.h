#pragma once
#include <complex>
#include <cstdint>
#include <span>
#include <vector>

// Long filters as a few decaying turns (Laughing Hyena, Massaroli et al., arXiv:2310.18780, section 3):
//   h_t ~ sum_m Re(w_m l_m^t)   for t >= 1
// Tap 0 passes an input through and costs no state, so that it is not fitted; modes have a value there all the same.
namespace sennit {

struct Modes {
  std::vector<std::complex<double>> poles, weights;  // one of each conjugate pair, and the real ones

  int64_t order() const;        // numbers of state: 2 for a pair, 1 for a real pole
  double tap(int64_t t) const;  // sum_m Re(w_m l_m^t)
};

// The largest singular values of the Hankel matrix H_ij = h_{1+i+j} of as many rows as columns, falling; `count` of
// them, or as many as it has. No system of order d comes nearer to H, in the operator norm, than the one of index d
// (Adamyan, Arov & Krein): nor can the absolute errors of taps 1 and later add up to less.
std::vector<double> hankel_singular_values(std::span<const double> h, int64_t count);

// A system of the smallest order, `order` at most, of which the singular value left out is no more than `tolerance` of
// the largest. Poles are those of the largest singular values' space (eigensystem realization, Juang & Pappa, 1985),
// held inside the unit circle; weights then have the least squares of error at taps 1 to the last.
Modes fit_modes(std::span<const double> h, int64_t order, double tolerance = 0);

}  // namespace sennit
