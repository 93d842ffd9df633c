#pragma once
// What the backward pass of paired gated linear attention works on.
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
  float *dq, *dk, *dg;          // [kTokens, K] those through the state at the chunk's start and at its end, then all
  float* dv;                    // [kTokens, V]
  float *da, *pair;             // [kTokens, kTokens]; pair decays times the scale, or the gradients of a tree's met
  float *states, *ds;           // [chunks, K, V] at the start of each chunk; [K, V] at this chunk's end
  // Decay::vector
  float *pair_dq, *pair_dk;  // [kTokens, K] gradients of queries and keys of pairs: of near ones as they have faded, of
                             // others as they have faded in their leaf alone
  float* through;            // [K] dg of the paths from the chunk's start to its end
  float *since, *back;       // [kTokens, K] near: what queries and keys are multiplied by,
  float* near_k;             // [kTokens, K] and the keys multiplied so, rounded to bf16
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
    for (float** p : {&v, &dy, &dv}) *p = pieces.take(kTokens * values);
    for (float** p : {&da, &pair}) *p = pieces.take(kTokens * kTokens);
    states = pieces.take((t.length + kTokens - 1) / kTokens * state_floats(t));
    ds = pieces.take(state_floats(t));
    for (float** p : {&dg, &pair_dq, &pair_dk, &since, &back, &near_k}) *p = pieces.take(kTokens * tree.width);
    for (float** p : {&left_k, &met_dq, &met_dk}) *p = pieces.take(kHalf * tree.width);
    passing = pieces.take(kLeaves * tree.width), through = pieces.take(tree.width);
  }
  int64_t state_floats(const GlaTask& t) const { return state_rows(t.key_dim) * width; }
};

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
