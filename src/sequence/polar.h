#pragma once
#include "autograd/var.h"
#include "sequence/batch.h"

namespace sennit {

// Pairs of numbers as lengths and phases, and what becomes of the phases at each position (ComplexFormer, Shao et al.,
// arXiv:2505.10222): pair i of head h, (x_i, x_{i + dim/2}) = A (cos theta, sin theta), turns to
//   A (cos psi, sin psi),   psi = stretch_h theta + p rate_hi + shift_hi
// at position p, theta in (-pi, pi]. With stretch 1 and shift 0 it is a rotary embedding with these rates.
struct PolarTurn {
  Var stretch;  // [heads]
  Var rate;     // [heads, dim / 2], radians a token
  Var shift;    // [heads, dim / 2]; undefined: 0
};
Var polar_turn(const Var& x, const PolarTurn& turn, std::span<const Segment> segments);  // x [N, heads dim]

}  // namespace sennit
