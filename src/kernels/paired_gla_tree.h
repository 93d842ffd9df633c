#pragma once
// Decay::vector: the pairs of tokens of a chunk by a binary tree. Leaves are 4 tokens; a node of 2s tokens joins s
// tokens to s later ones. Every pair of tokens of two leaves meets in one node, and has faded by what its key fades to
// the end of the left half times what the query saw fade since the start of the right one: two factors of at most 1 for
// each channel, so that the node is a product of scaled keys and scaled queries, however violent the decay (the sub-
// blocks of Yang et al., arXiv:2312.06635, section 4.3, all the way down). The nodes of one size are one product.
// Use only from src/kernels/paired_gla.cpp.
#include <cstdint>

#include "kernels/paired_gla_chunk.h"
#include "kernels/transpose.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kLeaf = 4, kLeaves = kTokens / kLeaf, kHalf = kTokens / 2;

// Rows are `width` apart, the key channels filled up by zeros.
struct Tree {
  int64_t width;
  float *q, *k;          // [kTokens, K] scale q_i and k_j, faded since the start of their leaf and until its end
  float *since, *until;  // [kLeaves, K] what a leaf's queries and keys further fade since the start and until the end
                         // of the node that the leaf is in
  float* whole;          // [kLeaves, K] how far the node that begins with a leaf fades in all
  float* right_q;        // [kHalf, K] the queries that meet keys in nodes of a size
  float* met;            // [kHalf, kHalf] their products
  float* near;           // [kTokens, kTokens] products of near tokens, see paired_gla_near.h
  Tree(const GlaTask& t, Scratch& pieces) : width(t.decay == Decay::vector ? whole_vectors(t.key_dim) : 0) {
    for (float** p : {&q, &k}) *p = pieces.take(kTokens * width);
    for (float** p : {&since, &until, &whole}) *p = pieces.take(kLeaves * width);
    right_q = pieces.take(kHalf * width);
    met = pieces.take(kHalf * kHalf), near = pieces.take(kTokens * kTokens);
  }
};

// A chunk's keys faded until its end, and total.
void fade_keys(const GlaTask& t, const Span& x, const PairedChunk& c, const Tree& tree, Asked& asked) {
  const int64_t w = tree.width;
  for (int64_t l = 0; l < w; l += kLanes) {
    const int64_t lanes = t.key_dim - l;
    vf power = zero();  // of two, by which they fade
    for (int64_t j = x.n - 1; j >= 0; --j) {
      if (j % 4 == 0) asked.some();
      store(tree.k + j * w + l, load_some(x.k + j * t.k_stride + l, lanes) * short_exp2(power));
      power = fma(load_some(x.g + j * t.g_stride + l, lanes), set(kPowersInE), power);
    }
    store(c.total + l, exp2(power));
  }
}

// The lanes of a leaf's tokens from channel l.
struct LeafLanes {
  vf q[kLeaf], k[kLeaf], e[kLeaf];
  SENNIT_INLINE LeafLanes(const GlaTask& t, const Span& x, int64_t leaf, int64_t l) {
    const int64_t lanes = t.key_dim - l;
#pragma GCC unroll 4
    for (int64_t r = 0; r < kLeaf; ++r) {
      const int64_t i = leaf * kLeaf + r, some = i < x.n ? lanes : 0;
      q[r] = load_some(x.q + i * t.q_stride + l, some) * set(t.scale);
      k[r] = load_some(x.k + i * t.k_stride + l, some);
      e[r] = decay_of(load_some(x.g + i * t.g_stride + l, some));
    }
  }
};

// The products of a leaf's pairs, and its q, k and whole.
template <bool Before>
void fill_leaf(const GlaTask& t, const Span& x, int64_t leaf, const Tree& tree, float* a, Asked& asked) {
  vf sums[kLeaf * kLeaf];
  for (vf& s : sums) s = zero();
  const int64_t at = leaf * kLeaf * tree.width;
  for (int64_t l = 0; l < tree.width; l += kLanes) {
    LeafLanes x4(t, x, leaf, l);
    asked.some();
    vf faded = set(1);
#pragma GCC unroll 4
    for (int i = 0; i < kLeaf; ++i) {
      vf* row = sums + i * kLeaf;
      const vf q = x4.q[i], own = faded * x4.e[i];
#pragma GCC unroll 4
      for (int j = 0; j < i; ++j) {
        const vf fresh = x4.k[j];
        x4.k[j] = fresh * x4.e[i];
        row[j] = fma(q, Before ? fresh : x4.k[j], row[j]);
      }
      if (!Before) row[i] = fma(q, x4.k[i], row[i]);
      store(tree.q + at + i * tree.width + l, q * (Before ? faded : own));
      faded = own;
    }
#pragma GCC unroll 4
    for (int j = 0; j < kLeaf; ++j) store(tree.k + at + j * tree.width + l, x4.k[j]);
    store(tree.whole + leaf * tree.width + l, faded);
    store(tree.since + leaf * tree.width + l, set(1));
    store(tree.until + leaf * tree.width + l, set(1));
  }
  float products[kLeaf * kLeaf];
  for (int i = 0; i < kLeaf * kLeaf; i += kLanes) {
    fold(sums + i);
    store(products + i, sums[i]);
  }
  for (int i = 0; i < kLeaf; ++i)
    for (int j = 0; j < kLeaf; ++j) a[(leaf * kLeaf + i) * kTokens + leaf * kLeaf + j] = products[i * kLeaf + j];
}

// The token in row `row` of those that are in right or left halves of nodes of 2 size tokens.
SENNIT_INLINE int64_t token_of(int64_t row, int64_t size, bool right) {
  return row / size * 2 * size + (right ? size : 0) + row % size;
}

// to's rows = a leaf's rows times a factor for each channel
SENNIT_INLINE void scale_leaf(const float* from, const float* by, int64_t width, float* to) {
  for (int64_t l = 0; l < width; l += kLanes) {
    const vf factor = load(by + l);
#pragma GCC unroll 4
    for (int64_t r = 0; r < kLeaf; ++r) store(to + r * width + l, load(from + r * width + l) * factor);
  }
}

// The factors of the products in nodes of 2 size tokens.
void pack_halves(const GlaTask& t, const PanelKernels& panels, const Tree& tree, int64_t size, float* queries,
                 float* keys) {
  const int64_t K = t.key_dim, w = tree.width;
  for (int64_t row = 0; row < kHalf; row += kLeaf) {
    const int64_t token = token_of(row, size, true);
    scale_leaf(tree.q + token * w, tree.since + token / kLeaf * w, w, tree.right_q + row * w);
  }
  pack_rows(panels, tree.right_q, w, false, kHalf, K, queries);
  pack_squares<true>(
      kHalf, keys, kPanelColumns, depth_of(K), [&](int64_t row, int64_t l) __attribute__((always_inline)) {
        const int64_t token = token_of(row, size, false);
        return l < w ? load(tree.k + token * w + l) * load(tree.until + token / kLeaf * w + l) : zero();
      });
}

// From nodes of `size` tokens to those twice as large.
void join(const Tree& tree, int64_t size) {
  const int64_t w = tree.width, leaves = size / kLeaf;
  for (int64_t left = 0; left < kLeaves; left += 2 * leaves)
    for (int64_t l = 0; l < w; l += kLanes) {
      float *left_whole = tree.whole + left * w + l, *right_whole = left_whole + leaves * w;
      const vf before = load(left_whole), after = load(right_whole);
      for (int64_t leaf = left; leaf < left + leaves; ++leaf) {
        float *until = tree.until + leaf * w + l, *since = tree.since + (leaf + leaves) * w + l;
        store(until, load(until) * after), store(since, load(since) * before);
      }
      store(left_whole, before * after);
    }
}

// The products of nodes of 2 size tokens, to where their pairs stand in a.
void place_products(const float* met, int64_t size, float* a) {
  for (int64_t row = 0; row < kHalf; ++row) {
    const int64_t left = row / size * 2 * size;
    const float* from = met + row * kHalf + row / size * size;
    float* to = a + (left + size + row % size) * kTokens + left;
    for_lanes(size, [&](int64_t j, int64_t lanes) { store_n(to + j, load_n(from + j, lanes), lanes); });
  }
}

// Fades the chunk's queries and keys and fills total and what of a stands in leaves; calls meet(size) while the tree is
// about to join nodes of `size` tokens that have pairs to meet. In the end the root is as long as the chunk.
template <class Meet>
SENNIT_INLINE void fade_channels(const GlaTask& t, const Span& x, const PairedChunk& c, const Tree& tree, Asked& asked,
                                 const Meet& meet) {
  const int64_t w = tree.width;
  for (int64_t leaf = 0; leaf < kLeaves; ++leaf)
    t.reads_before ? fill_leaf<true>(t, x, leaf, tree, c.a, asked) : fill_leaf<false>(t, x, leaf, tree, c.a, asked);
  for (int64_t size = kLeaf; size < kTokens; size *= 2) {
    if (size < x.n) meet(size);
    join(tree, size);
  }
  for (int64_t leaf = 0; leaf < kLeaves; ++leaf) {
    const int64_t at = leaf * kLeaf * w;
    scale_leaf(tree.q + at, tree.since + leaf * w, w, tree.q + at);
    scale_leaf(tree.k + at, tree.until + leaf * w, w, tree.k + at);
    asked.some();
  }
  copy(tree.whole, c.total, w);
}

// The products of the queries and keys that meet in nodes of 2 size tokens. c.keys and c.other serve as scratch.
void meet_halves(const GlaTask& t, const PanelKernels& panels, const PairedChunk& c, const Tree& tree, int64_t size) {
  pack_halves(t, panels, tree, size, c.keys, c.other);
  multiply_packed(panels, c.keys, c.other, tree.met, kHalf, kHalf, kHalf, t.key_dim, false);
  place_products(tree.met, size, c.a);
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
