#pragma once
#include "mixers/mixer.h"

namespace sennit::mixers {

// Throws Error when the heads do not divide the width.
int64_t head_dim(const char* name, int64_t d_model, int64_t heads);

// What mixers of heads share: maps to queries, keys and values, and one back from what the heads say.
struct Heads : Mixer {
  // key_dim: numbers of a head's queries and keys; 0: as many as of its values, d_model / heads.
  Heads(const char* name, const Dims& d, int64_t heads, Rng rng, int64_t key_dim = 0);

  void visit(const ParameterVisitor& p) override;
  Var output(const Var& x, const Var& core, const Context& c) override;
  int64_t width() const { return heads * dim; }
  int64_t map_flops(int64_t n) const;                     // of the four maps over n rows
  int64_t map_flops(int64_t n, int64_t looked_at) const;  // with keys and values of other rows

  // sum_p q[i, h, p] k[j, h, p] for j <= i of one sequence: the weights of linear attention. q, k [T, heads f].
  ImplicitMatrix inner_products(const Tensor& q, const Tensor& k, const Tensor& values) const;
  // The weights of softmax attention: row i over the keys up to i.
  ImplicitMatrix softmax_weights(const Tensor& q, const Tensor& k, const Tensor& values, double scale) const;

  int64_t heads, dim, key_dim;
  Linear q, k, v, out;
};

}  // namespace sennit::mixers
