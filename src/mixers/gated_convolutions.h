#pragma once
#include <functional>

#include "mixers/mixer.h"

namespace sennit::mixers {

// What Hyena's mixers share (Poli et al., arXiv:2302.10866, definition 3.1): maps, gates and a short convolution
//   v, x^1 ... x^N = short_conv(W u);   z = v;   z <- x^n * (h^n conv z + D^n * z) for n = 1 ... N;   y = W_o z
// and not what the filters h^n are made of. `order` counts the convolutions and one.
struct GatedConvolutions : Mixer {
  static constexpr int64_t kConv = 3;
  // Throws Error where `filters`, of each convolution, does not divide the width; 0: one a channel.
  GatedConvolutions(const char* name, const Dims& d, int64_t order, int64_t filters, Rng rng);

  void visit(const ParameterVisitor& p) override;
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }
  StateField conv_state() const { return {"conv", {kConv - 1, in.out()}}; }

  // filtered(z, n) is the convolution of z [N, d_model] with filter n = 1, 2, ...
  using Filtered = std::function<Var(const Var& z, int64_t n)>;
  Var gated(const Var& u, const Batch& batch, const Filtered& filtered);
  using NaiveFiltered = std::function<naive::Matrix(const naive::Matrix& z, int64_t n)>;
  naive::Matrix naive_gated(NaiveRun& run, const NaiveFiltered& filtered) const;
  // tap(n, filter, lag): gates are diagonal matrices and filters those with equal diagonals, and their product is
  // taken.
  using Tap = std::function<double(int64_t n, int64_t filter, int64_t lag)>;
  ImplicitMatrix product(const Var& u, const Context& c, const Tap& tap);
  int64_t gated_flops(int64_t n) const;  // without the filters

  int64_t order, filters, width;
  Linear in, out;
  Parameter conv, skip;
};

}  // namespace sennit::mixers
