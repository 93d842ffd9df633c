#pragma once
// Decay::vector: the gradients of near pairs (paired_gla_near.h) of gates that each let 2^-10 pass.
// Use only from src/kernels/paired_gla.cpp.
#include <cstdint>

#include "kernels/paired_gla_backward.h"
#include "kernels/paired_gla_near.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// Near pairs, of gates that let enough of a token pass: their products, and their gradients with respect to queries and
// keys as they have faded, from da.
void meet_near(const GlaTask& t, const Span& x, const Backward& b, Products& products) {
  const Tree& tree = b.tree;
  const int64_t K = t.key_dim, w = tree.width, n = x.n, back = t.reads_before ? 1 : 0;
  products.take_left(tree.q, w, false, n, K), products.take_right(b.near_k, w, false, n, K);
  products.put(tree.near, kTokens);
  place_near(tree.near, n, back, b.chunk.a), place_near(b.da, n, back, b.da);
  products.take_left(b.da, kTokens, false, n, n), products.take_right(b.near_k, w, true, K, n);
  products.put(b.pair_dq, w);
  products.take_left(b.da, kTokens, true, n, n), products.take_right(tree.q, w, true, K, n);
  products.put(b.pair_dk, w);
  for (int64_t j = 0; j < kTokens; j += kLeaf) scale_leaf(b.near_k + j * w, b.chunk.total, w, tree.k + j * w);
}

// dq, dk and dg from what came through the states and from near pairs. Those that cross a gate are all that end at or
// after it but those that begin there, too: a difference, of which f32 keeps more than bf16 does of its terms as long
// as the gate lets 2^-10 pass. Each term must be the same on either side, hence rounded factors.
template <bool Before>
void near_gradients(const Span& x, const Backward& b) {
  const int64_t w = b.tree.width;
  for (int64_t l = 0; l < w; l += kLanes) {
    const vf total = load(b.chunk.total + l);
    vf earlier = load(b.through + l), ending = zero(), beginning = zero();
    for (int64_t at = l; at < x.n * w; at += w) {
      store(b.dg + at, earlier);
      earlier = fma(load(b.tree.k + at), load(b.dk + at), earlier);
    }
    for (int64_t at = (x.n - 1) * w + l; at >= 0; at -= w) {
      const vf dq = load(b.dq + at) + load(b.pair_dq + at), dk = load(b.pair_dk + at), back = load(b.back + at);
      const vf later = ending;
      ending = fma(load(b.tree.q + at), dq, ending), beginning = fma(load(b.near_k + at), dk, beginning);
      store(b.dg + at, load(b.dg + at) + ((Before ? later : ending) - beginning));
      store(b.dq + at, dq * load(b.since + at));
      store(b.dk + at, fma(load(b.dk + at), total, dk) * back);
    }
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
