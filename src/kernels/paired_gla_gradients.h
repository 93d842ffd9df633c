#pragma once
// The gradients of a chunk of gated linear attention, from products of bf16 pairs.
// Use only from src/kernels/paired_gla.cpp.
#include <cstdint>

#include "kernels/paired_gla_near_gradients.h"
#include "kernels/paired_gla_tree_gradients.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

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
    fade_keys(t, x, c, b.tree, products.asked);
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

// dq, dk and dg from what came through the states and from the pairs' da.
void token_gradients(const GlaTask& t, int64_t n, const Backward& b, const float* s, Products& products, Sum dg) {
  const int64_t K = t.key_dim;
  if (t.decay == Decay::scalar) {
    multiply_pairs(b.chunk.a, b.da, n);
    add_token_gates(t, n, b, s, b.chunk.a, dg);
  }
  multiply_pairs(b.da, b.pair, n);
  products.take_left(b.da, kTokens, false, n, n), products.take_right(b.k, b.keys, true, K, n);
  products.put(b.dq, b.keys, true);
  products.take_left(b.da, kTokens, true, n, n), products.take_right(b.q, b.keys, true, K, n);
  products.put(b.dk, b.keys, true);
}

// Decay::vector: a chunk's a, and its queries and keys as they have faded since its start and until its end; returns
// whether all its pairs are near.
bool meet_channels(const GlaTask& t, const Span& x, const Backward& b, Products& products) {
  bool near = lets_pass(t, x);
  if (near) {
    const FadedBack kept{b.near_k, b.since, b.back};
    t.reads_before ? fade_from_start<true>(t, x, b.chunk, b.tree, products.asked, &kept)
                   : fade_from_start<false>(t, x, b.chunk, b.tree, products.asked, &kept);
    near = near_tokens(t, x, b.chunk.total) == x.n;
  }
  near ? meet_near(t, x, b, products) : meet_tree(t, x, b, products);
  return near;
}
void channel_gradients(const GlaTask& t, const Span& x, const Backward& b, const float* s, bool near) {
  const int64_t w = b.width;
  for (int64_t l = 0; l < t.key_dim; ++l) b.through[l] = b.chunk.total[l] * dot(s + l * w, b.ds + l * w, w);
  if (!near) return tree_gradients(t, x, b);
  t.reads_before ? near_gradients<true>(x, b) : near_gradients<false>(x, b);
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
  bool near = false;
  if (channels)
    near = meet_channels(t, x, b, products);
  else
    meet_tokens(t, x, b, products), multiply_pairs(c.a, b.pair, n);
  const Faded f = faded(t, b);

  products.take_left(b.dy, b.values, false, n, V), products.take_right(s, b.width, false, K, V);
  products.put(b.dq, b.keys);
  products.take_left(b.v, b.values, false, n, V), products.take_right(b.ds, b.width, false, K, V);
  products.put(b.dk, b.keys);
  products.take_left(f.k, f.stride, false, n, K), products.take_right(b.ds, b.width, true, V, K);
  products.put(b.dv, b.values);
  if (!channels) {
    scale_rows(b.dq, b.keys, c.before, n, b.keys), scale_rows(b.dk, b.keys, c.after, n, b.keys);
    scale_rows(b.dv, b.values, c.after, n, b.values);
  }
  products.take_left(c.a, kTokens, true, n, n), products.take_right(b.dy, b.values, true, V, n);
  products.put(b.dv, b.values, true);

  channels ? channel_gradients(t, x, b, s, near) : token_gradients(t, n, b, s, products, to.g);
  add_rows({b.dq, b.keys}, n, K, to.q, t.q_stride), add_rows({b.dk, b.keys}, n, K, to.k, t.k_stride);
  add_rows({b.dv, b.values}, n, V, to.v, t.v_stride);
  if (channels) add_rows({b.dg, b.keys}, n, K, to.g, t.g_stride);
  scale_rows(b.ds, b.width, c.total, K, b.width);
  if (!channels) scale_rows(b.dy, b.values, c.before, n, b.values);
  products.take_left(f.q, f.stride, true, K, n), products.take_right(b.dy, b.values, true, V, n);
  products.put(b.ds, b.width, true);
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
