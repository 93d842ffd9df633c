#pragma once
// A chunk of gated linear attention: its rows, how far they fade within it, and the products of its pairs of tokens.
// Use only from src/kernels/gla.cpp.
#include <cstdint>

#include "kernels/chunk.h"
#include "kernels/gla.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// exp(g) of up to kChunk tokens: e [n, key_dim] for Decay::vector, e [n] for Decay::scalar.
template <Decay D>
SENNIT_INLINE void load_decays(const GlaTask& t, int64_t first, int64_t n, float* e) {
  for (int64_t i = 0; i < n && D != Decay::none; ++i) {
    const float* g = t.g + (first + i) * t.g_stride;
    if constexpr (D == Decay::vector)
      for_lanes(t.key_dim,
                [&](int64_t l, int64_t k) { store_n(e + i * t.key_dim + l, exp_decay(load_n(g + l, k)), k); });
    else
      store_n(e + i, exp_decay(set(*g)), 1);
  }
}

// What the products of a chunk need. What a token reads of the state, and what it leaves in it, fades by the channels
// of its key with Decay::vector, where these are scaled, else by the token, where products and values are.
struct Chunk {
  float *q, *k, *v;  // [n, K], [n, K], [n, V] the chunk's rows
  float* e;          // exp(g), see load_decays
  float* total;      // [K] exp(g_1 + ... + g_n)
  float* a;          // [n, kChunk] scale sum_k q_ik k_jk exp(g_{j+1} + ... + g_r) for j <= r, else 0
  // Decay::vector
  float* qd;  // [n, K] scale q_i exp(g_1 + ... + g_r), where token i reads after token r: itself, or that before it
  float* kd;  // [n, K] k_j exp(g_{j+1} + ... + g_n)
  // else
  float* before;  // [n] scale exp(g_1 + ... + g_r)
  float* after;   // [n] exp(g_{j+1} + ... + g_n)
  float* vd;      // [n, V] after_j v_j
  SENNIT_INLINE Chunk(const GlaTask& t, Scratch& pieces) {
    for (float** p : {&q, &k, &e, &qd, &kd}) *p = pieces.take(kChunk * t.key_dim);
    for (float** p : {&v, &vd}) *p = pieces.take(kChunk * t.value_dim);
    for (float** p : {&before, &after}) *p = pieces.take(kChunk);
    total = pieces.take(t.key_dim);
    a = pieces.take(kChunk * kChunk);
  }
};

template <Decay D>
SENNIT_INLINE Ahead chunk_ahead(const GlaTask& t, int64_t first) {
  Ahead ahead = tokens_ahead(t, first);
  if (D == Decay::vector && is_token(t, first))
    ahead.add({t.g + first * t.g_stride, t.g_stride}, Tokens(t, first).n, t.key_dim);
  return ahead;
}

// kd and total
void fade_keys(const GlaTask& t, int64_t n, const Chunk& c) {
  const int64_t K = t.key_dim;
  for_lanes(K, [&](int64_t l, int64_t lanes) {
    vf after = set(1);
    for (int64_t j = n - 1; j >= 0; --j) {
      store_n(c.kd + j * K + l, load_n(c.k + j * K + l, lanes) * after, lanes);
      after = after * load_n(c.e + j * K + l, lanes);
    }
    store_n(c.total + l, after, lanes);
  });
}

// after, vd and total
template <Decay D>
SENNIT_INLINE void fade_values(const GlaTask& t, int64_t n, const Chunk& c) {
  float after = 1;
  for (int64_t j = n - 1; j >= 0; --j) {
    c.after[j] = after;
    if (D == Decay::scalar) after *= c.e[j];
  }
  for_lanes(t.key_dim, [&](int64_t l, int64_t lanes) { store_n(c.total + l, set(after), lanes); });
  scaled_rows({c.v, t.value_dim}, c.after, n, t.value_dim, c.vd);
}

// What a chunk leaves in the state: k, v and e, and what these two give.
template <Decay D>
SENNIT_INLINE void load_writes(const GlaTask& t, const Tokens& x, const Chunk& c) {
  gather({t.k + x.first * t.k_stride, t.k_stride}, x.n, t.key_dim, c.k);
  gather({t.v + x.first * t.v_stride, t.v_stride}, x.n, t.value_dim, c.v);
  load_decays<D>(t, x.first, x.n, c.e);
  if constexpr (D == Decay::vector)
    fade_keys(t, x.n, c);
  else
    fade_values<D>(t, x.n, c);
}

// What it reads of the state, once its decays are loaded: q, and qd or before.
template <Decay D>
SENNIT_INLINE void load_reads(const GlaTask& t, const Tokens& x, const Chunk& c) {
  const int64_t K = t.key_dim, n = x.n;
  gather({t.q + x.first * t.q_stride, t.q_stride}, n, K, c.q);
  if constexpr (D == Decay::vector) {
    for_lanes(K, [&](int64_t l, int64_t lanes) {
      vf before = set(t.scale);
      for (int64_t i = 0; i < n; ++i) {
        const vf own = before * load_n(c.e + i * K + l, lanes);
        store_n(c.qd + i * K + l, load_n(c.q + i * K + l, lanes) * (t.reads_before ? before : own), lanes);
        before = own;
      }
    });
    return;
  }
  float before = t.scale;
  for (int64_t i = 0; i < n; ++i) {
    const float own = D == Decay::scalar ? before * c.e[i] : before;
    c.before[i] = t.reads_before ? before : own;
    before = own;
  }
}

// S, or with Transposed its transpose, from a chunk's start to its end.
template <Decay D, bool Transposed>
SENNIT_INLINE void advance_state(const GlaTask& t, int64_t n, const Chunk& c, const float* from, float* to,
                                 Ahead& ahead) {
  const int64_t K = t.key_dim, V = t.value_dim;
  const float *keys = D == Decay::vector ? c.kd : c.k, *values = D == Decay::vector ? c.v : c.vd;
  if (Transposed)
    multiply({V, K, n}, {values, 1, V}, {keys, K},
             {.p = to, .stride = state_stride(K), .start = from, .column_scale = c.total, .ahead = &ahead});
  else
    multiply({K, V, n}, {keys, 1, K}, {values, V},
             {.p = to, .stride = state_stride(V), .start = from, .row_scale = c.total, .ahead = &ahead});
}

// How many tokens back a token reads.
SENNIT_INLINE int64_t reads_back(const GlaTask& t) {
  return t.reads_before ? 1 : 0;
}

// products [kChunk] += those of key j, as it has faded until they read it, with the queries of the chunk; over P
// vectors of channels, from l.
template <int P>
SENNIT_INLINE void add_faded_products(const GlaTask& t, const Chunk& c, int64_t n, int64_t j, int64_t l, int64_t lanes,
                                      float* products) {
  const int64_t K = t.key_dim, back = reads_back(t), first = j + back;
  vf key[P];
  for (int p = 0; p < P; ++p) key[p] = load_n(c.k + j * K + l + p * kLanes, lanes);
  for (int64_t block = first / 4 * 4; block < n; block += 4) {
    vf s[4] = {zero(), zero(), zero(), zero()};
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const int64_t i = block + u;
      if (i < first || i >= n) continue;
      const float *q = c.q + i * K + l, *e = c.e + (i - back) * K + l;
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        if (i > first) key[p] = key[p] * load_n(e + p * kLanes, lanes);
        s[u] = fma(load_n(q + p * kLanes, lanes), key[p], s[u]);
      }
    }
    add_sums(s, products + block);
  }
}

void faded_products(const GlaTask& t, const Chunk& c, int64_t n) {
  const int64_t K = t.key_dim;
  float by_key[kChunk * kChunk];
  copy(nullptr, by_key, kChunk * kChunk);
  for (int64_t j = 0; j < n; ++j) {
    float* products = by_key + j * kChunk;
    for_columns(K, [&](auto vectors, int64_t l, int64_t lanes) {
      add_faded_products<decltype(vectors)::count>(t, c, n, j, l, lanes, products);
    });
  }
  transpose(by_key, kChunk, kChunk, kChunk, c.a, kChunk);
}

// Products of pairs times the scale and, with Decay::scalar, how far the pair has faded.
template <Decay D>
SENNIT_INLINE void scale_pairs(const GlaTask& t, int64_t n, const Chunk& c, float* a) {
  if constexpr (D == Decay::scalar) {
    const int64_t back = reads_back(t);
    float pair[kChunk * kChunk];
    pair_decays(c.e, n, pair);
    for_lanes((n - back) * kChunk, [&](int64_t i, int64_t l) {
      float* to = a + back * kChunk + i;
      store_n(to, load_n(to, l) * load_n(pair + i, l), l);
    });
  }
  for_lanes(n * kChunk, [&](int64_t i, int64_t l) { store_n(a + i, load_n(a + i, l) * set(t.scale), l); });
}

template <Decay D>
SENNIT_INLINE void attention(const GlaTask& t, const Tokens& x, const Chunk& c) {
  if constexpr (D == Decay::vector)
    faded_products(t, c, x.n);
  else
    lower_products({c.q, t.key_dim}, {c.k, t.key_dim}, t.key_dim, x.n, c.a, reads_back(t));
  scale_pairs<D>(t, x.n, c, c.a);
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
