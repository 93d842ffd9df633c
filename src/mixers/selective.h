#pragma once
#include "mixers/mixer.h"
#include "nn/short_conv.h"

namespace sennit::mixers {

// The selective state space of Mamba (Gu & Dao, arXiv:2312.00752, algorithm 2), from its projected input a [N, inner]
// on:
//   x = silu(conv(a));  dt, B, C = W_x x;  dt = softplus(W_dt dt + b)
//   h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,   s_t = C_t h_t + D x_t
// Without `selects`, dt, B and C are learned and the same at every token, which makes it a fixed state space
// (S4D-real).
struct Selective : Module {
  struct Sizes {
    int64_t inner, state, conv, dt_rank;
    bool selects = true;
  };
  Selective() = default;
  Selective(const Sizes& s, Rng rng);

  Var operator()(const Var& a, const Batch& batch, size_t field);  // uses fields `field` and the next
  StateSpec state() const;                                         // {"h", "conv"}
  void visit(const ParameterVisitor& p) override;
  int64_t flops(int64_t n) const;

  // The weights under `prefix`; s [T, inner], with `h` and `conv` in and out.
  naive::Matrix naive(const naive::Matrix& a, const naive::Weights& w, const std::string& prefix, naive::Matrix& h,
                      naive::Matrix& conv) const;
  // One matrix a channel (Ali et al., "The hidden attention of Mamba models", arXiv:2403.01590, equation 11).
  ImplicitMatrix implicit(const Var& a, const Context& c);

  struct Choices {
    Var dt, b, c;  // [N, inner], [N, state] twice
  };
  Choices choices(const Var& x, const Context& c);

  Sizes sizes{};
  Linear x_dt, x_b, x_c, dt;
  ShortConv conv;
  Parameter log_a, skip;
  Parameter fixed_dt, fixed_b, fixed_c;  // [inner], [state] twice, where nothing is selected
};

// round(expand d_model); throws Error when nothing is left.
int64_t inner_width(const char* name, int64_t d_model, double expand);

}  // namespace sennit::mixers
