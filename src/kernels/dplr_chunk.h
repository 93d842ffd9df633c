#pragma once
// A chunk of a recurrence whose transition is diagonal plus of rank one. Of a token, a reads z of the state; the state
// fades, and b z^T and k v^T are written to it; then scale q reads y. So a chunk of n tokens is 2 n reads r = a_1,
// scale q_1, a_2, ... of o = z_1, y_1, z_2, ... and 2 n writes w = b_1, k_1, b_2, ... of u = z_1, v_1, z_2, ...:
//   o = rd S_0 + p u,   S_n = total S_0 + wd^T u
// where p are the products of reads with the writes before them, as these have faded until then. Every other row of u
// is one of o: a unit lower triangular system (the UT form; Yang et al., arXiv:2406.06484, section 3.2), which the
// forward pass has solved token by token and the gradients solve in turn.
// Use only from src/kernels/dplr.cpp.
#include <cstdint>

#include "kernels/chunk.h"
#include "kernels/dplr.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kChunkTokens = kChunk / 2;

struct Chunk {
  float *r, *w;    // [2 n, K]
  float *rd, *wd;  // [2 n, K] reads faded since the chunk's start, writes faded until its end
  float* e;        // [n, K] exp(g)
  float* total;    // [K] exp(g_1 + ... + g_n)
  float* p;        // [2 n, kChunk]
  float* u;        // [2 n, V]
  Chunk() = default;
  SENNIT_INLINE Chunk(const DplrTask& t, Scratch& pieces) {
    for (float** x : {&r, &w, &rd, &wd}) *x = pieces.take(kChunk * t.key_dim);
    e = pieces.take(kChunkTokens * t.key_dim);
    total = pieces.take(t.key_dim);
    p = pieces.take(kChunk * kChunk);
    u = pieces.take(kChunk * t.value_dim);
  }
};

SENNIT_INLINE Tokens chunk_at(const DplrTask& t, int64_t first) {
  return {t, first, kChunkTokens};
}

SENNIT_INLINE Ahead chunk_ahead(const DplrTask& t, int64_t first) {
  Ahead ahead;
  if (!is_token(t, first)) return ahead;
  const int64_t n = chunk_at(t, first).n;
  for (const float* x : {t.a, t.q, t.g, t.b, t.k}) ahead.add({x + first * t.stride, t.stride}, n, t.key_dim);
  ahead.add({t.v + first * t.v_stride, t.v_stride}, n, t.value_dim);
  ahead.add({t.z + first * t.v_stride, t.v_stride}, n, t.value_dim);
  return ahead;
}

// A column of vectors of a chunk's rows of keys, `stride` apart in the task, from `from`.
struct KeyColumn {
  int64_t n, stride, from, K, l, lanes;
  SENNIT_INLINE KeyColumn(const DplrTask& t, const Tokens& x, int64_t column, int64_t columns)
      : n(x.n), stride(t.stride), from(x.first * t.stride + column), K(t.key_dim), l(column), lanes(columns) {}
};

// r, rd, e and total. Stores may alias the task and the chunk: what the loops need is copied.
SENNIT_INLINE void load_reads(const DplrTask& t, Chunk c, const KeyColumn x) {
  const float *a = t.a + x.from, *q = t.q + x.from, *g = t.g + x.from;
  float *r = c.r + x.l, *rd = c.rd + x.l, *e = c.e + x.l;
  const vf scale = set(t.scale);
  vf before = set(1);
  for (int64_t i = 0; i < x.n;
       ++i, a += x.stride, q += x.stride, g += x.stride, r += 2 * x.K, rd += 2 * x.K, e += x.K) {
    const vf of_z = load_n(a, x.lanes), of_y = scale * load_n(q, x.lanes), decay = exp_decay(load_n(g, x.lanes));
    store_n(r, of_z, x.lanes);
    store_n(r + x.K, of_y, x.lanes);
    store_n(e, decay, x.lanes);
    store_n(rd, before * of_z, x.lanes);
    before = before * decay;
    store_n(rd + x.K, before * of_y, x.lanes);
  }
  store_n(c.total + x.l, before, x.lanes);
}

// w and wd
SENNIT_INLINE void load_writes(const DplrTask& t, Chunk c, const KeyColumn x) {
  const float *b = t.b + x.from, *k = t.k + x.from;
  vf after = set(1);
  for (int64_t j = x.n - 1; j >= 0; --j) {
    const int64_t to = 2 * j * x.K + x.l;
    const vf of_z = load_n(b + j * x.stride, x.lanes), of_v = load_n(k + j * x.stride, x.lanes);
    store_n(c.w + to, of_z, x.lanes);
    store_n(c.w + to + x.K, of_v, x.lanes);
    store_n(c.wd + to, after * of_z, x.lanes);
    store_n(c.wd + to + x.K, after * of_v, x.lanes);
    after = after * load_n(c.e + j * x.K + x.l, x.lanes);
  }
}

void load_keys(const DplrTask& t, const Tokens& x, const Chunk& c) {
  for_lanes(t.key_dim, [&](int64_t l, int64_t lanes) {
    const KeyColumn column(t, x, l, lanes);
    load_reads(t, c, column);
    load_writes(t, c, column);
  });
}

// Every other row of `to` [2 n, dim].
void gather_apart(Rows from, int64_t n, int64_t dim, float* to) {
  for_lanes(dim, [&](int64_t l, int64_t lanes) {
    for (int64_t i = 0; i < n; ++i) store_n(to + 2 * i * dim + l, load_n(from[i] + l, lanes), lanes);
  });
}

// u
void load_written(const DplrTask& t, const Tokens& x, const Chunk& c) {
  const int64_t V = t.value_dim;
  gather_apart({t.z + x.first * t.v_stride, t.v_stride}, x.n, V, c.u);
  gather_apart({t.v + x.first * t.v_stride, t.v_stride}, x.n, V, c.u + V);
}

// products [n, 4] += those of the tokens' reads, by a and by q, with token j's writes, of b and of k, as these have
// faded until then; over P vectors of channels, from l.
template <int P>
SENNIT_INLINE void add_faded_products(const Chunk& c, int64_t K, int64_t n, int64_t j, int64_t l, int64_t lanes,
                                      float* products) {
  vf b[P], k[P];
  for (int p = 0; p < P; ++p) {
    b[p] = load_n(c.w + 2 * j * K + l + p * kLanes, lanes);
    k[p] = load_n(c.w + (2 * j + 1) * K + l + p * kLanes, lanes);
  }
  for (int64_t i = j; i < n; ++i) {
    const float *a = c.r + 2 * i * K + l, *q = a + K, *e = c.e + i * K + l;
    vf s[4] = {zero(), zero(), zero(), zero()};
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      if (i > j) {
        const vf read = load_n(a + p * kLanes, lanes), fade = load_n(e + p * kLanes, lanes);
        s[0] = fma(read, b[p], s[0]);
        s[1] = fma(read, k[p], s[1]);
        b[p] = b[p] * fade;
        k[p] = k[p] * fade;
      }
      const vf read = load_n(q + p * kLanes, lanes);
      s[2] = fma(read, b[p], s[2]);
      s[3] = fma(read, k[p], s[3]);
    }
    add_sums(s, products + 4 * i);
  }
}

// p
void faded_products(const DplrTask& t, const Chunk& c, int64_t n) {
  copy(nullptr, c.p, kChunk * kChunk);
  for (int64_t j = 0; j < n; ++j) {
    float products[4 * kChunkTokens] = {};
    for_columns<4>(t.key_dim, [&](auto vectors, int64_t l, int64_t lanes) {
      add_faded_products<decltype(vectors)::count>(c, t.key_dim, n, j, l, lanes, products);
    });
    for (int64_t i = j; i < n; ++i)
      for (int64_t r = 0; r < 2; ++r)
        for (int64_t w = 0; w < 2; ++w) c.p[(2 * i + r) * kChunk + 2 * j + w] = products[4 * i + 2 * r + w];
  }
}

void advance_state(const DplrTask& t, int64_t n, const Chunk& c, const float* from, float* to, Ahead& ahead) {
  const int64_t K = t.key_dim, V = t.value_dim;
  multiply({K, V, 2 * n}, {c.wd, 1, K}, {c.u, V},
           {.p = to, .stride = state_stride(V), .start = from, .row_scale = c.total, .ahead = &ahead});
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
