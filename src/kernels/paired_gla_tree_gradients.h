#pragma once
// Decay::vector: the gradients of pairs by the tree of paired_gla_tree.h. That of a gate gathers every path from a
// token (or the state) before it to one at or after it, each path as a sum of its own, as kernels/gla.cpp does: nothing
// cancels, so that what little passes a violent gate keeps its precision.
// Use only from src/kernels/paired_gla.cpp.
#include <cstdint>

#include "kernels/paired_gla_backward.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The four rows of a leaf: their gradients as faded further, brought to those of its q or k; returns the sum over them
// of what faded times its gradient.
SENNIT_INLINE vf add_leaf(const float* x, const float* dx, int64_t stride, vf by, float* to) {
  vf paths = zero();
#pragma GCC unroll 4
  for (int64_t r = 0; r < kLeaf; ++r) {
    const vf d = load(dx + r * stride);
    paths = fma(load(x + r * stride), d, paths);
    store(to + r * stride, fma(d, by, load(to + r * stride)));
  }
  return paths;
}

// Gradients of the queries and keys in the rows of nodes' halves: those of the leaves, and the paths that pass whole
// leaves, from the node's middle to a query and from a key to the middle. rows: of a half.
void add_halves(const Backward& b, int64_t rows, int64_t size, const float* q, const float* dq, const float* k,
                const float* dk, bool apart) {
  const Tree& tree = b.tree;
  const int64_t w = tree.width, leaves = size / kLeaf;
  for (int64_t l = 0; l < w; l += kLanes)
    for (int64_t row = 0; row < rows; row += size) {
      vf later = zero(), earlier = zero();
      for (int64_t n = 0; n < leaves; ++n) {
        const int64_t key_row = row + n * kLeaf, query_row = row + (leaves - 1 - n) * kLeaf;
        const int64_t key = apart ? token_of(key_row, size, false) : key_row,
                      query = apart ? token_of(query_row, size, true) : query_row;
        float *passing_key = b.passing + key / kLeaf * w + l, *passing_query = b.passing + query / kLeaf * w + l;
        store(passing_key, load(passing_key) + earlier);
        store(passing_query, load(passing_query) + later);
        earlier = earlier + add_leaf(k + key_row * w + l, dk + key_row * w + l, w,
                                     load(tree.until + key / kLeaf * w + l), b.pair_dk + key * w + l);
        later = later + add_leaf(q + query_row * w + l, dq + query_row * w + l, w,
                                 load(tree.since + query / kLeaf * w + l), b.pair_dq + query * w + l);
      }
    }
}

// The gradients of pairs that meet in nodes of 2 size tokens, as a factor: zeros where rows and columns do not meet.
void gather_met(const float* da, int64_t size, float* met) {
  fill(met, kHalf * kHalf, 0);
  for (int64_t row = 0; row < kHalf; ++row) {
    const int64_t node = row / size;
    const float* from = da + token_of(row, size, true) * kTokens + node * 2 * size;
    for (int64_t j = 0; j < size; ++j) met[row * kHalf + node * size + j] = from[j];
  }
}

// The products of those pairs, and their gradients.
void meet_halves_back(const GlaTask& t, const Backward& b, Products& products, int64_t size) {
  const int64_t K = t.key_dim, w = b.tree.width;
  meet_halves(t, products.panels, b.chunk, b.tree, size);
  for (int64_t row = 0; row < kHalf; row += kLeaf) {
    const int64_t token = token_of(row, size, false);
    scale_leaf(b.tree.k + token * w, b.tree.until + token / kLeaf * w, w, b.left_k + row * w);
  }
  gather_met(b.da, size, b.pair);
  products.take_left(b.pair, kHalf, false, kHalf, kHalf), products.take_right(b.left_k, w, true, K, kHalf);
  products.put(b.met_dq, w);
  products.take_left(b.pair, kHalf, true, kHalf, kHalf), products.take_right(b.tree.right_q, w, true, K, kHalf);
  products.put(b.met_dk, w);
  add_halves(b, kHalf, size, b.tree.right_q, b.met_dq, b.left_k, b.met_dk, true);
}

// Of pairs that are not near: a, faded queries and keys, and the gradients of pairs in nodes.
void meet_tree(const GlaTask& t, const Span& x, const Backward& b, Products& products) {
  const int64_t w = b.tree.width;
  for (float* p : {b.pair_dq, b.pair_dk}) fill(p, kTokens * w, 0);
  for (float* p : {b.met_dq, b.met_dk}) fill(p, kHalf * w, 0);  // in the channels that fill up
  fill(b.passing, kLeaves * w, 0);
  fade_channels(t, x, b.chunk, b.tree, products.asked, [&](int64_t size) { meet_halves_back(t, b, products, size); });
}

// Those of a leaf's own pairs, from channel l, as inner_paths of kernels/gla.cpp: adds to dk and dg, returns dq.
template <bool Before>
SENNIT_INLINE void leaf_pairs(const LeafLanes& x, const float* da, vf (&dq)[kLeaf], vf (&dk)[kLeaf], vf (&dg)[kLeaf]) {
  for (vf& d : dq) d = zero();
#pragma GCC unroll 4
  for (int64_t j = 0; j < kLeaf; ++j) {
    vf faded = set(1), crossing = zero();
    if (!Before) {
      const vf here = set(da[j * kTokens + j]);
      dq[j] = fma(here, x.k[j], dq[j]), dk[j] = fma(here, x.q[j], dk[j]);
    }
#pragma GCC unroll 4
    for (int64_t i = j + 1; i < kLeaf; ++i) {
      const vf own = faded * x.e[i], d = (Before ? faded : own) * set(da[i * kTokens + j]);
      dq[i] = fma(d, x.k[j], dq[i]);
      dk[j] = fma(d, x.q[i], dk[j]);
      if (!Before || i > j + 1) crossing = fma(x.q[i], dq[i], crossing);  // from all tokens up to j to token i
      faded = own;
    }
    if (j + 1 < kLeaf) dg[j + 1] = dg[j + 1] + crossing;
  }
}

// A leaf's dq, dk and dg, from channel l.
template <bool Before>
void put_leaf(const GlaTask& t, const Span& x, const Backward& b, int64_t leaf, int64_t l) {
  const int64_t w = b.tree.width, first = leaf * kLeaf;
  const LeafLanes rows(t, x, leaf, l);
  const float *leaf_dq = b.pair_dq + first * w + l, *leaf_dk = b.pair_dk + first * w + l;
  vf dq[kLeaf], dk[kLeaf], dg[kLeaf], since[kLeaf], until[kLeaf];
  vf faded = set(1), later = zero(), earlier = zero();
  for (int i = 0; i < kLeaf; ++i) {
    const vf own = faded * rows.e[i];
    since[i] = Before ? faded : own, faded = own;
    dg[i] = load(b.passing + leaf * w + l);
  }
  faded = set(1);
  for (int j = kLeaf - 1; j >= 0; --j) until[j] = faded, faded = faded * rows.e[j];
  for (int i = kLeaf - 1; i >= 0; --i) {
    const vf own = fma(rows.q[i] * since[i], load(leaf_dq + i * w), later);
    dg[i] = dg[i] + (Before ? later : own);
    later = own;
  }
  for (int j = 0; j < kLeaf; ++j) {
    dk[j] = load(leaf_dk + j * w) * until[j];
    dg[j] = dg[j] + earlier;
    earlier = fma(rows.k[j], dk[j], earlier);
  }
  leaf_pairs<Before>(rows, b.da + first * kTokens + first, dq, dk, dg);
  for (int64_t i = 0; i < kLeaf; ++i) {
    const int64_t at = (first + i) * w + l;
    store(b.dq + at, fma(load(leaf_dq + i * w), since[i], dq[i]) * set(t.scale));
    store(b.dk + at, dk[i]);
    store(b.dg + at, dg[i]);
  }
}

// dq, dk and dg from what came through the states, the nodes and the leaves.
void tree_gradients(const GlaTask& t, const Span& x, const Backward& b) {
  const int64_t w = b.tree.width;
  for (int64_t leaf = 0; leaf < kLeaves; ++leaf)
    for (int64_t l = 0; l < w; l += kLanes)
      store(b.passing + leaf * w + l, load(b.passing + leaf * w + l) + load(b.through + l));
  add_halves(b, kTokens, kTokens, b.tree.q, b.dq, b.tree.k, b.dk, false);
  for (int64_t leaf = 0; leaf * kLeaf < x.n; ++leaf)
    for (int64_t l = 0; l < w; l += kLanes)
      t.reads_before ? put_leaf<true>(t, x, b, leaf, l) : put_leaf<false>(t, x, b, leaf, l);
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
