#include "kernels/gla.h"

#include "kernels/chunk.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// exp(g) of up to kChunk tokens: e [n, key_dim] for Decay::vector, e [n] for Decay::scalar.
template <Decay D>
SENNIT_INLINE void load_decays(const GlaTask& t, int64_t first, int64_t n, float* e) {
  for (int64_t i = 0; i < n && D != Decay::none; ++i) {
    const float* g = t.g + (first + i) * t.g_stride;
    if constexpr (D == Decay::vector)
      for_lanes(t.key_dim, [&](int64_t l, int64_t k) { store_n(e + i * t.key_dim + l, exp(load_n(g + l, k)), k); });
    else
      store_n(e + i, exp(set(*g)), 1);
  }
}

// a exp(g_i) for the key channels from l.
template <Decay D>
SENNIT_INLINE vf decay(vf a, const float* e, int64_t key_dim, int64_t i, int64_t l, int64_t lanes) {
  if constexpr (D == Decay::vector) return a * load_n(e + i * key_dim + l, lanes);
  if constexpr (D == Decay::scalar) return a * set(e[i]);
  return a;
}

// The J vectors of S, from column l, through one token.
template <Decay D, int J>
SENNIT_INLINE void step_columns(const GlaTask& t, const float* q, const float* k, const float* v, const float* e,
                                const float* from, float* to, float* y, int64_t l, int64_t lanes) {
  vf value[J], out[J];
  for (int j = 0; j < J; ++j) value[j] = load_n(v + l + j * kLanes, lanes), out[j] = zero();
  for (int64_t i = 0; i < t.key_dim; ++i) {
    const vf key = set(k[i]), query = set(q[i]);
    for (int j = 0; j < J; ++j) {
      const int64_t at = i * t.value_dim + l + j * kLanes;
      vf s = load_n(from + at, lanes);
      if (t.reads_before) out[j] = fma(query, s, out[j]);
      if (D != Decay::none) s = s * set(e[D == Decay::vector ? i : 0]);
      s = fma(key, value[j], s);
      store_n(to + at, s, lanes);
      if (!t.reads_before) out[j] = fma(query, s, out[j]);
    }
  }
  for (int j = 0; j < J; ++j) store_n(y + l + j * kLanes, out[j] * set(t.scale), lanes);
}

template <Decay D>
void recurrent_with(const GlaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  Scratch pieces(scratch);
  float* e = pieces.take(t.key_dim);
  float* s = s_end ? s_end : pieces.take(t.key_dim * t.value_dim);
  if (!s0 || t.length == 0) copy(s0, s, t.key_dim * t.value_dim);
  const float* from = s0 ? s0 : s;
  for (int64_t i = 0; i < t.length; ++i, from = s) {
    load_decays<D>(t, i, 1, e);
    const float *q = t.q + i * t.q_stride, *k = t.k + i * t.k_stride, *v = t.v + i * t.v_stride;
    float* out = y + i * y_stride;
    int64_t l = 0;
    for (; l + 4 * kLanes <= t.value_dim; l += 4 * kLanes) step_columns<D, 4>(t, q, k, v, e, from, s, out, l, kLanes);
    for (; l + kLanes <= t.value_dim; l += kLanes) step_columns<D, 1>(t, q, k, v, e, from, s, out, l, kLanes);
    if (l < t.value_dim) step_columns<D, 1>(t, q, k, v, e, from, s, out, l, t.value_dim - l);
  }
}

// The tokens of a chunk.
struct Tokens {
  int64_t first, n;
  Rows q, k, v;
  SENNIT_INLINE Tokens(const GlaTask& t, int64_t begin)
      : first(begin),
        n(t.length - begin < kChunk ? t.length - begin : kChunk),
        q{t.q + begin * t.q_stride, t.q_stride},
        k{t.k + begin * t.k_stride, t.k_stride},
        v{t.v + begin * t.v_stride, t.v_stride} {}
};

// What the products of a chunk of n tokens need.
struct Chunk {
  float* e;      // exp(g), see load_decays
  float* qd;     // [n, K] scale q_i exp(g_1 + ... + g_r), where token i reads after token r: itself, or that before it
  float* kd;     // [n, K] k_j exp(g_{j+1} + ... + g_n)
  float* total;  // [K] exp(g_1 + ... + g_n)
  float* a;      // [n, kChunk] scale sum_k q_ik k_jk exp(g_{j+1} + ... + g_r) for j <= r, else 0
  SENNIT_INLINE Chunk(const GlaTask& t, Scratch& pieces) {
    for (float** p : {&e, &qd, &kd}) *p = pieces.take(kChunk * t.key_dim);
    total = pieces.take(t.key_dim);
    a = pieces.take(kChunk * kChunk);
  }
};

template <Decay D>
SENNIT_INLINE void prepare(const GlaTask& t, const Tokens& x, const Chunk& c) {
  const int64_t K = t.key_dim;
  load_decays<D>(t, x.first, x.n, c.e);
  for_lanes(K, [&](int64_t l, int64_t lanes) {
    vf before = set(1), after = set(1);
    for (int64_t i = 0; i < x.n; ++i) {
      const vf own = decay<D>(before, c.e, K, i, l, lanes);
      store_n(c.qd + i * K + l, load_n(x.q[i] + l, lanes) * set(t.scale) * (t.reads_before ? before : own), lanes);
      before = own;
    }
    store_n(c.total + l, before, lanes);
    for (int64_t j = x.n - 1; j >= 0; --j) {
      store_n(c.kd + j * K + l, load_n(x.k[j] + l, lanes) * after, lanes);
      after = decay<D>(after, c.e, K, j, l, lanes);
    }
  });
}

void scale_pairs(float* a, float scale) {
  for_lanes(kChunk * kChunk, [&](int64_t i, int64_t l) { store_n(a + i, load_n(a + i, l) * set(scale), l); });
}

// How many tokens back a token reads.
SENNIT_INLINE int64_t reads_back(const GlaTask& t) {
  return t.reads_before ? 1 : 0;
}

template <Decay D>
SENNIT_INLINE void attention(const GlaTask& t, const Tokens& x, const Chunk& c) {
  const auto fade = [&](vf key, int64_t i, int64_t l, int64_t lanes) {
    return decay<D>(key, c.e, t.key_dim, i, l, lanes);
  };
  lower_products(x.q, x.k, t.key_dim, x.n, c.a, fade, reads_back(t));
  scale_pairs(c.a, t.scale);
}

template <Decay D>
void chunked_with(const GlaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  const Chunk c(t, pieces);
  float* s = s_end ? s_end : pieces.take(K * V);
  copy(s0, s, K * V);
  for (int64_t first = 0; first < t.length; first += kChunk, y += kChunk * y_stride) {
    const Tokens x(t, first);
    prepare<D>(t, x, c);
    attention<D>(t, x, c);
    multiply({x.n, V, K}, {c.qd, K, 1}, {s, V}, {.p = y, .stride = y_stride});
    add_lower_multiply(x.n, V, {c.a, kChunk, 1}, x.v, y, y_stride);
    multiply({K, V, x.n}, {c.kd, 1, K}, x.v, {.p = s, .stride = V, .start = s, .row_scale = c.total});
  }
}

// Buffers of the backward pass, beside a Chunk. States are transposed, [V, K], so that key channels are lanes.
struct Backward {
  float* states;   // [chunks, V, K] at the start of each chunk
  float* ds;       // [V, K] gradient of the state at the chunk's end
  float* ds_rows;  // [K, V] the same
  float* da;       // [n, kChunk]
  float* dq;       // [n, K] before the decay from the chunk's start
  float* dk;       // [n, K] before the decay to the chunk's end
  float* dy;       // [n, V]
  float* dv;       // [n, V]
  SENNIT_INLINE Backward(const GlaTask& t, Scratch& pieces) {
    states = pieces.take((t.length + kChunk - 1) / kChunk * t.key_dim * t.value_dim);
    for (float** p : {&ds, &ds_rows}) *p = pieces.take(t.key_dim * t.value_dim);
    da = pieces.take(kChunk * kChunk);
    for (float** p : {&dq, &dk}) *p = pieces.take(kChunk * t.key_dim);
    for (float** p : {&dy, &dv}) *p = pieces.take(kChunk * t.value_dim);
  }
};

struct Gradients {
  float *dq, *dk, *dv, *dg;  // at the chunk's first token
};

template <Decay D>
SENNIT_INLINE void states_at_chunks(const GlaTask& t, const float* s0, const Chunk& c, const Backward& b) {
  const int64_t K = t.key_dim, V = t.value_dim;
  if (s0)
    transpose(s0, V, K, V, b.states, K);
  else
    copy(nullptr, b.states, K * V);
  float* s = b.states;
  for (int64_t first = 0; first + kChunk < t.length; first += kChunk, s += K * V) {
    const Tokens x(t, first);
    prepare<D>(t, x, c);
    multiply({V, K, x.n}, {x.v.p, 1, x.v.stride}, {c.kd, K},
             {.p = s + K * V, .stride = K, .start = s, .column_scale = c.total});
  }
}

// dg_t gathers every path from a token (or the state) before t to one at or after t. Each path is a sum of its own, so
// that nothing cancels: after a violent gate the little that passes keeps its precision.
struct Paths {
  vf to[kChunk];      // by the token at which they end
  vf across[kChunk];  // dg of each token
};

// Through the state: from the chunk's start to its end, from its start to token i, from token j to its end.
SENNIT_INLINE void state_paths(const GlaTask& t, const Chunk& c, const Backward& b, vf through, int64_t n, int64_t l,
                               int64_t lanes, Paths& paths) {
  const int64_t K = t.key_dim;
  vf later = through, earlier = zero();
  for (int64_t i = n - 1; i >= 0; --i) {
    const vf own = fma(load_n(c.qd + i * K + l, lanes), load_n(b.dq + i * K + l, lanes), later);
    paths.across[i] = t.reads_before ? later : own;
    later = own;
  }
  for (int64_t j = 0; j < n; ++j) {
    paths.across[j] = paths.across[j] + earlier;
    earlier = fma(load_n(c.kd + j * K + l, lanes), load_n(b.dk + j * K + l, lanes), earlier);
  }
}

// Within the chunk, key channels from l: adds to dq (kept in `query`) and dk, and for Decay::vector to `paths`.
template <Decay D>
SENNIT_INLINE void inner_paths(const GlaTask& t, const Tokens& x, const Chunk& c, const float* da, int64_t l,
                               int64_t lanes, vf (&query)[kChunk], vf (&key)[kChunk], Paths& paths) {
  for (int64_t i = 0; i < x.n; ++i) paths.to[i] = zero();
  for (int64_t j = 0; j < x.n; ++j) {
    const int64_t first_crossed = j + reads_back(t);
    const vf kj = load_n(x.k[j] + l, lanes), here = set(da[j * kChunk + j]);
    vf w = set(1), dk = fma(here, load_n(x.q[j] + l, lanes), key[j]), crossing = zero();
    query[j] = fma(here, kj, query[j]);
    for (int64_t i = j + 1; i < x.n; ++i) {
      const vf own = decay<D>(w, c.e, t.key_dim, i, l, lanes);
      const vf d = (t.reads_before ? w : own) * set(da[i * kChunk + j]), dq = d * load_n(x.q[i] + l, lanes);
      w = own;
      query[i] = fma(d, kj, query[i]);
      dk = dk + dq;
      if (D != Decay::vector) continue;
      paths.to[i] = fma(dq, kj, paths.to[i]);
      if (i > first_crossed) crossing = crossing + paths.to[i];
    }
    key[j] = dk;
    if (D == Decay::vector && j + 1 < x.n) paths.across[j + 1] = paths.across[j + 1] + crossing;
  }
}

// The sums over rows of a b, for the lanes of one column of vectors; in four partial sums, not to wait for each
// addition.
SENNIT_INLINE vf column_dots(const float* a, const float* b, int64_t stride, int64_t rows, int64_t lanes) {
  vf s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4)
    for (int64_t j = 0; j < 4; ++j)
      s[j] = fma(load_n(a + (i + j) * stride, lanes), load_n(b + (i + j) * stride, lanes), s[j]);
  for (; i < rows; ++i) s[0] = fma(load_n(a + i * stride, lanes), load_n(b + i * stride, lanes), s[0]);
  return (s[0] + s[1]) + (s[2] + s[3]);
}

// The key channels of a chunk's gradients, from the products in `b`.
template <Decay D>
SENNIT_INLINE void key_gradients(const GlaTask& t, const Tokens& x, const Chunk& c, const Backward& b, const float* s,
                                 const Gradients& to) {
  const int64_t K = t.key_dim, n = x.n;
  for_lanes(K, [&](int64_t l, int64_t lanes) {
    vf query[kChunk], key[kChunk], before = set(t.scale), after = set(1);
    for (int64_t i = 0; i < n; ++i) {
      const vf own = decay<D>(before, c.e, K, i, l, lanes);
      query[i] = (t.reads_before ? before : own) * load_n(b.dq + i * K + l, lanes);
      before = own;
    }
    for (int64_t j = n - 1; j >= 0; --j) {
      key[j] = after * load_n(b.dk + j * K + l, lanes);
      after = decay<D>(after, c.e, K, j, l, lanes);
    }
    Paths paths;
    if (D != Decay::none) {
      const vf through = column_dots(s + l, b.ds + l, K, t.value_dim, lanes);
      state_paths(t, c, b, through * after, n, l, lanes, paths);
    }
    inner_paths<D>(t, x, c, b.da, l, lanes, query, key, paths);
    for (int64_t i = 0; i < n; ++i) {
      add_n(to.dq + i * t.q_stride + l, query[i], lanes);
      add_n(to.dk + i * t.k_stride + l, key[i], lanes);
      if (D == Decay::vector) add_n(to.dg + i * t.g_stride + l, paths.across[i], lanes);
      if (D == Decay::scalar) to.dg[i * t.g_stride] += sum(paths.across[i]);
    }
  });
}

// The paths within the chunk for Decay::scalar, which are the same for all key channels; da is before the scale.
void scalar_inner_paths(const GlaTask& t, const float* a, const float* da, int64_t n, float* dg) {
  float weight[kChunk * kChunk];
  for (int64_t i = 0; i < n * kChunk; ++i) weight[i] = a[i] * da[i];
  add_crossing(weight + reads_back(t) * kChunk, n - reads_back(t), dg, t.g_stride);
}

template <Decay D>
void backward_chunk(const GlaTask& t, const Tokens& x, Rows dy_rows, const Chunk& c, const Backward& b, const float* s,
                    const Gradients& to) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  const Rows dy{b.dy, V};
  gather(dy_rows, n, V, b.dy);
  prepare<D>(t, x, c);
  attention<D>(t, x, c);
  lower_products(dy, x.v, V, n, b.da, reads_back(t));
  if (D == Decay::scalar) scalar_inner_paths(t, c.a, b.da, n, to.dg);
  scale_pairs(b.da, t.scale);

  transpose(b.ds, K, V, K, b.ds_rows, V);
  multiply({n, V, n}, {c.a, 1, kChunk}, dy, {.p = b.dv, .stride = V});
  multiply({n, V, K}, {c.kd, K, 1}, {b.ds_rows, V}, {.p = b.dv, .stride = V, .start = b.dv});
  add_rows(b.dv, n, V, to.dv, t.v_stride);
  multiply({n, K, V}, {b.dy, V, 1}, {s, K}, {.p = b.dq, .stride = K});
  multiply({n, K, V}, {x.v.p, x.v.stride, 1}, {b.ds, K}, {.p = b.dk, .stride = K});
  key_gradients<D>(t, x, c, b, s, to);
  multiply({V, K, n}, {b.dy, 1, V}, {c.qd, K}, {.p = b.ds, .stride = K, .start = b.ds, .column_scale = c.total});
}

template <Decay D>
void backward_with(const GlaTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   const Gradients& to, float* ds0, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  const Chunk c(t, pieces);
  const Backward b(t, pieces);
  if (ds_end)
    transpose(ds_end, V, K, V, b.ds, K);
  else
    copy(nullptr, b.ds, K * V);
  if (t.length > 0) states_at_chunks<D>(t, s0, c, b);
  for (int64_t chunk = (t.length + kChunk - 1) / kChunk - 1; chunk >= 0; --chunk) {
    const int64_t first = chunk * kChunk;
    const Gradients here{to.dq + first * t.q_stride, to.dk + first * t.k_stride, to.dv + first * t.v_stride,
                         D == Decay::none ? nullptr : to.dg + first * t.g_stride};
    backward_chunk<D>(t, Tokens(t, first), {dy + first * dy_stride, dy_stride}, c, b, b.states + chunk * K * V, here);
  }
  if (!ds0) return;
  transpose(b.ds, K, V, K, b.ds_rows, V);
  for_lanes(K * V, [&](int64_t i, int64_t l) { add_n(ds0 + i, load_n(b.ds_rows + i, l), l); });
}

int64_t scratch_floats(const GlaTask& t) {
  Scratch pieces(nullptr);
  Chunk(t, pieces);
  pieces.take(t.key_dim * t.value_dim);
  return pieces.needed();
}

int64_t backward_scratch_floats(const GlaTask& t) {
  Scratch pieces(nullptr);
  Chunk(t, pieces);
  Backward(t, pieces);
  return pieces.needed();
}

void recurrent(const GlaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  switch (t.decay) {
    case Decay::none:
      return recurrent_with<Decay::none>(t, s0, s_end, y, y_stride, scratch);
    case Decay::scalar:
      return recurrent_with<Decay::scalar>(t, s0, s_end, y, y_stride, scratch);
    case Decay::vector:
      return recurrent_with<Decay::vector>(t, s0, s_end, y, y_stride, scratch);
  }
}

void chunked(const GlaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  switch (t.decay) {
    case Decay::none:
      return chunked_with<Decay::none>(t, s0, s_end, y, y_stride, scratch);
    case Decay::scalar:
      return chunked_with<Decay::scalar>(t, s0, s_end, y, y_stride, scratch);
    case Decay::vector:
      return chunked_with<Decay::vector>(t, s0, s_end, y, y_stride, scratch);
  }
}

void backward(const GlaTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end, float* dq,
              float* dk, float* dv, float* dg, float* ds0, float* scratch) {
  const Gradients to{dq, dk, dv, dg};
  switch (t.decay) {
    case Decay::none:
      return backward_with<Decay::none>(t, s0, dy, dy_stride, ds_end, to, ds0, scratch);
    case Decay::scalar:
      return backward_with<Decay::scalar>(t, s0, dy, dy_stride, ds_end, to, ds0, scratch);
    case Decay::vector:
      return backward_with<Decay::vector>(t, s0, dy, dy_stride, ds_end, to, ds0, scratch);
  }
}

}  // namespace

const Gla gla_table = {
    .scratch_floats = scratch_floats,
    .backward_scratch_floats = backward_scratch_floats,
    .recurrent = recurrent,
    .chunked = chunked,
    .backward = backward,
};

}  // namespace sennit::kernels::SENNIT_LEVEL
