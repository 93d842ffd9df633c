#pragma once
// The gradients of a chunk of gated linear attention, from products of bf16 pairs. That of a gate gathers every path
// from a token (or the state) before it to one at or after it, each path as a sum of its own, as kernels/gla.cpp does:
// nothing cancels, so that what little passes a violent gate keeps its precision.
// Use only from src/kernels/paired_gla.cpp.
#include <cstdint>

#include "kernels/paired_gla_tree.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// A product's factors, packed one by one: what two products in a row share is packed once.
struct Products {
  const PanelKernels& panels;
  float *left, *right;
  Asked asked;
  int64_t m = 0, n = 0, k = 0;
  void take_left(const float* x, int64_t stride, bool k_major, int64_t rows, int64_t depth) {
    m = rows, k = depth;
    asked.some(kTokens / 16);
    pack_rows(panels, x, stride, k_major, rows, depth, left);
  }
  void take_right(const float* x, int64_t stride, bool k_major, int64_t columns, int64_t depth) {
    n = columns, k = depth;
    asked.some(kTokens / 16);
    pack_columns(panels, x, stride, k_major, columns, columns, depth, right);
  }
  void put(float* c, int64_t stride, bool add = false) const {
    multiply_packed(panels, left, right, c, stride, m, n, k, add);
  }
};

// Buffers of the backward pass, beside a PairedChunk and a Tree. Rows of K and V columns are keys and values apart.
struct Backward {
  PairedChunk chunk;
  Tree tree;
  int64_t keys, values, width;  // width: of a state, see state_rows
  float *left, *right;          // packed
  float *q, *k, *v, *dy;        // a chunk's rows; q and k but with Decay::vector
  float *dq, *dk;               // [kTokens, K] those through the state at the chunk's start and at its end
  float *dv, *read_dy;          // [kTokens, V]; before_i dy_i
  float *da, *pair;             // [kTokens, kTokens]; pair decays times the scale, or the gradients of a tree's met
  float *states, *ds;           // [chunks, K, V] at the start of each chunk; [K, V] at this chunk's end
  // Decay::vector
  float *leaf_dq, *leaf_dk;  // [kTokens, K] gradients of the queries and keys that have faded in their leaf alone
  float* left_k;             // [kHalf, K] the keys that meet queries in nodes of a size
  float *met_dq, *met_dk;    // [kHalf, K] gradients of the two
  float* passing;            // [kLeaves, K] the paths through all of a leaf's gates
  Backward(const GlaTask& t, Scratch& pieces)
      : chunk(t, pieces),
        tree(t, pieces),
        keys(whole_vectors(t.key_dim)),
        values(whole_vectors(t.value_dim)),
        width(whole_panels(t.value_dim)) {
    const int64_t most = keys > values ? (keys > kTokens ? keys : kTokens) : values > kTokens ? values : kTokens;
    left = pieces.take(panel_floats(most, most)), right = pieces.take(panel_floats(most, most));
    for (float** p : {&q, &k, &dq, &dk}) *p = pieces.take(kTokens * keys);
    for (float** p : {&v, &dy, &dv, &read_dy}) *p = pieces.take(kTokens * values);
    for (float** p : {&da, &pair}) *p = pieces.take(kTokens * kTokens);
    states = pieces.take((t.length + kTokens - 1) / kTokens * state_floats(t));
    ds = pieces.take(state_floats(t));
    for (float** p : {&leaf_dq, &leaf_dk}) *p = pieces.take(kTokens * tree.width);
    for (float** p : {&left_k, &met_dq, &met_dk}) *p = pieces.take(kHalf * tree.width);
    passing = pieces.take(kLeaves * tree.width);
  }
  int64_t state_floats(const GlaTask& t) const { return state_rows(t.key_dim) * width; }
};

using Gradients = Gla::Gradients;

SENNIT_INLINE Gradients at_token(const GlaTask& t, const Gradients& to, int64_t first) {
  return {.q = to.q.from(first * t.q_stride),
          .k = to.k.from(first * t.k_stride),
          .v = to.v.from(first * t.v_stride),
          .g = to.g.from(first * t.g_stride)};
}
SENNIT_INLINE void ask_for(const GlaTask& t, const Gradients& to, Asked& asked) {
  asked.add(to.q.at, t.q_stride, t.key_dim), asked.add(to.k.at, t.k_stride, t.key_dim);
  asked.add(to.v.at, t.v_stride, t.value_dim);
  if (t.decay == Decay::vector) asked.add(to.g.at, t.g_stride, t.key_dim);
}

void scale_rows(float* x, int64_t stride, const float* by, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; ++i, x += stride)
    for (int64_t l = 0; l < width; l += kLanes) store(x + l, load(x + l) * set(by[i]));
}

// A chunk's queries and keys as the products with the state take them.
struct Faded {
  const float *q, *k;
  int64_t stride;
};
Faded faded(const GlaTask& t, const Backward& b) {
  if (t.decay == Decay::vector) return {b.tree.q, b.tree.k, b.tree.width};
  return {b.q, b.k, b.keys};
}

// S from a chunk's start to its end.
void advance_state(const GlaTask& t, const Span& x, const Backward& b, Products& products, const float* s,
                   float* next) {
  const PairedChunk& c = b.chunk;
  if (t.decay == Decay::vector)
    fade_channels(t, x, c, b.tree, products.asked, [](int64_t) {});
  else
    fade_tokens(t, x, c), copy_state(x.k, t.k_stride, x.n, t.key_dim, b.k, b.keys);
  pack_values(t, x, c, products.asked);
  copy(s, next, b.state_floats(t));
  scale_rows(next, b.width, c.total, t.key_dim, b.width);
  const Faded f = faded(t, b);
  products.take_left(f.k, f.stride, true, t.key_dim, x.n);
  multiply_packed(products.panels, products.left, t.decay == Decay::vector ? c.values : c.written, next, b.width,
                  t.key_dim, t.value_dim, x.n, true);
}

// dg_t += the sum of weight [n, kTokens] over the pairs j < t and i >= t + back.
void add_crossing_pairs(const float* weight, int64_t n, int64_t back, float* dg) {
  constexpr int kVectors = kTokens / kLanes;
  float later[kTokens] = {};  // of a key, the sum over the rows from i on
  for (int64_t i = n - 1; i > back; --i) {
    for (int v = 0; v < kVectors; ++v)
      store(later + v * kLanes, load(later + v * kLanes) + load(weight + i * kTokens + v * kLanes));
    vf crossing = zero();
    for_lanes(i - back, [&](int64_t l, int64_t k) { crossing = crossing + load_n(later + l, k); });
    dg[i - back] += sum(crossing);
  }
}

// Decay::scalar: dg, from dq and dk through the states and the gradients of pairs' log decays.
void add_token_gates(const GlaTask& t, int64_t n, const Backward& b, const float* s, const float* pairs, Sum to) {
  float dg[kTokens] = {};
  add_crossing_pairs(pairs, n, t.reads_before ? 1 : 0, dg);
  float later = 0, earlier = 0;
  for (int64_t i = 0; i < t.key_dim; ++i) later += b.chunk.total[i] * dot(s + i * b.width, b.ds + i * b.width, b.width);
  for (int64_t i = n - 1; i >= 0; --i) {
    const float own = later + dot(b.q + i * b.keys, b.dq + i * b.keys, t.key_dim);
    dg[i] += t.reads_before ? later : own;
    later = own;
  }
  for (int64_t j = 0; j < n; ++j) {
    dg[j] += earlier;
    earlier += dot(b.k + j * b.keys, b.dk + j * b.keys, t.key_dim);
  }
  add_rows({dg, 1}, n, 1, to, t.g_stride);
}

// Decay::none and Decay::scalar: the rows, a and pair of a chunk.
void meet_tokens(const GlaTask& t, const Span& x, const Backward& b, Products& products) {
  fade_tokens(t, x, b.chunk);
  copy_state(x.q, t.q_stride, x.n, t.key_dim, b.q, b.keys), copy_state(x.k, t.k_stride, x.n, t.key_dim, b.k, b.keys);
  products.take_left(b.q, b.keys, false, x.n, t.key_dim), products.take_right(b.k, b.keys, false, x.n, t.key_dim);
  products.put(b.chunk.a, kTokens);
  fill(b.pair, kTokens * kTokens, 1);
  weigh_pairs(t, b.chunk.decays, x.n, b.pair, products.asked);
}
// x <- x y
void multiply_pairs(float* x, const float* y, int64_t n) {
  for (int64_t i = 0; i < n * kTokens; i += kLanes) store(x + i, load(x + i) * load(y + i));
}

// Adds dq, dk and dg from what came through the states and from the pairs' da.
void token_gradients(const GlaTask& t, int64_t n, const Backward& b, const float* s, Products& products,
                     const Gradients& to) {
  const int64_t K = t.key_dim;
  if (t.decay == Decay::scalar) {
    multiply_pairs(b.chunk.a, b.da, n);
    add_token_gates(t, n, b, s, b.chunk.a, to.g);
  }
  multiply_pairs(b.da, b.pair, n);
  products.take_left(b.da, kTokens, false, n, n), products.take_right(b.k, b.keys, true, K, n);
  products.put(b.dq, b.keys, true);
  products.take_left(b.da, kTokens, true, n, n), products.take_right(b.q, b.keys, true, K, n);
  products.put(b.dk, b.keys, true);
  add_rows({b.dq, b.keys}, n, K, to.q, t.q_stride), add_rows({b.dk, b.keys}, n, K, to.k, t.k_stride);
}

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
                                     load(tree.until + key / kLeaf * w + l), b.leaf_dk + key * w + l);
        later = later + add_leaf(q + query_row * w + l, dq + query_row * w + l, w,
                                 load(tree.since + query / kLeaf * w + l), b.leaf_dq + query * w + l);
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

// Decay::vector: a, faded queries and keys, and the gradients of pairs in nodes.
void meet_channels(const GlaTask& t, const Span& x, const Backward& b, Products& products) {
  const int64_t w = b.tree.width;
  for (float* p : {b.leaf_dq, b.leaf_dk}) fill(p, kTokens * w, 0);
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

// Adds a leaf's dq, dk and dg, from channel l.
template <bool Before>
void put_leaf(const GlaTask& t, const Span& x, const Backward& b, int64_t leaf, int64_t l, const Gradients& to) {
  const int64_t w = b.tree.width, first = leaf * kLeaf, lanes = smaller(t.key_dim - l, kLanes);
  const LeafLanes rows(t, x, leaf, l);
  const float *leaf_dq = b.leaf_dq + first * w + l, *leaf_dk = b.leaf_dk + first * w + l;
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
  for (int64_t i = 0; i < kLeaf && first + i < x.n; ++i) {
    const int64_t at = first + i;
    add_lanes(to.q, at * t.q_stride + l, fma(load(leaf_dq + i * w), since[i], dq[i]) * set(t.scale), lanes);
    add_lanes(to.k, at * t.k_stride + l, dk[i], lanes);
    add_lanes(to.g, at * t.g_stride + l, dg[i], lanes);
  }
}

// Adds dq, dk and dg from what came through the states, the nodes and the leaves.
void channel_gradients(const GlaTask& t, const Span& x, const Backward& b, const float* s, const Gradients& to) {
  const int64_t w = b.tree.width;
  for (int64_t l = 0; l < t.key_dim; ++l) {
    const float through = b.chunk.total[l] * dot(s + l * b.width, b.ds + l * b.width, b.width);
    for (int64_t leaf = 0; leaf < kLeaves; ++leaf) b.passing[leaf * w + l] += through;
  }
  add_halves(b, kTokens, kTokens, b.tree.q, b.dq, b.tree.k, b.dk, false);
  for (int64_t leaf = 0; leaf * kLeaf < x.n; ++leaf)
    for (int64_t l = 0; l < t.key_dim; l += kLanes)
      t.reads_before ? put_leaf<true>(t, x, b, leaf, l, to) : put_leaf<false>(t, x, b, leaf, l, to);
}

// From ds at the chunk's end to that at its start s, and adds the chunk's gradients.
void backward_chunk(const GlaTask& t, const Span& x, const float* dy, int64_t dy_stride, const Backward& b,
                    Products& products, const float* s, const Gradients& to) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  const PairedChunk& c = b.chunk;
  const bool channels = t.decay == Decay::vector;
  copy_state(x.v, t.v_stride, n, V, b.v, b.values), copy_state(dy, dy_stride, n, V, b.dy, b.values);
  if (n < kTokens) fill(b.da, kTokens * kTokens, 0);
  products.take_left(b.dy, b.values, false, n, V), products.take_right(b.v, b.values, false, n, V);
  products.put(b.da, kTokens);
  channels ? meet_channels(t, x, b, products) : meet_tokens(t, x, b, products);
  if (!channels) multiply_pairs(c.a, b.pair, n);
  const Faded f = faded(t, b);

  products.take_left(b.dy, b.values, false, n, V), products.take_right(s, b.width, false, K, V);
  products.put(b.dq, b.keys);
  products.take_left(b.v, b.values, false, n, V), products.take_right(b.ds, b.width, false, K, V);
  products.put(b.dk, b.keys);
  products.take_left(f.k, f.stride, false, n, K), products.take_right(b.ds, b.width, true, V, K);
  products.put(b.dv, b.values);
  scale_rows(b.dq, b.keys, c.before, n, b.keys), scale_rows(b.dk, b.keys, c.after, n, b.keys);
  scale_rows(b.dv, b.values, c.after, n, b.values);
  products.take_left(c.a, kTokens, true, n, n), products.take_right(b.dy, b.values, true, V, n);
  products.put(b.dv, b.values, true);
  add_rows({b.dv, b.values}, n, V, to.v, t.v_stride);

  channels ? channel_gradients(t, x, b, s, to) : token_gradients(t, n, b, s, products, to);
  copy(b.dy, b.read_dy, kTokens * b.values);
  scale_rows(b.read_dy, b.values, c.before, n, b.values), scale_rows(b.ds, b.width, c.total, K, b.width);
  products.take_left(f.q, f.stride, true, K, n), products.take_right(b.read_dy, b.values, true, V, n);
  products.put(b.ds, b.width, true);
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
