#include "kernels/gla.h"

#include "kernels/gla_chunk.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The rows of one token.
struct Token {
  const float *q, *k, *v, *e;  // e: its decays
};

// The J vectors of S, from column l, through one token. Stores may alias the task: what the loop needs is copied.
template <Decay D, bool Before, int J>
SENNIT_INLINE void step_columns(const GlaTask& t, Token x, const float* from, float* to, float* y, int64_t l,
                                int64_t lanes) {
  const int64_t key_dim = t.key_dim, stride = t.value_dim;
  vf value[J], out[J];
  for (int j = 0; j < J; ++j) value[j] = load_n(x.v + l + j * kLanes, lanes), out[j] = zero();
  from += l, to += l;
  for (int64_t i = 0; i < key_dim; ++i, from += stride, to += stride) {
    const vf key = set(x.k[i]), query = set(x.q[i]),
             decay = set(D == Decay::none ? 1 : x.e[D == Decay::vector ? i : 0]);
    for (int j = 0; j < J; ++j) {
      vf s = load_n(from + j * kLanes, lanes);
      if (Before) out[j] = fma(query, s, out[j]);
      s = fma(key, value[j], D == Decay::none ? s : s * decay);
      store_n(to + j * kLanes, s, lanes);
      if (!Before) out[j] = fma(query, s, out[j]);
    }
  }
  for (int j = 0; j < J; ++j) store_n(y + l + j * kLanes, out[j] * set(t.scale), lanes);
}

template <Decay D, bool Before>
SENNIT_INLINE void step(const GlaTask& t, Token x, const float* from, float* to, float* y) {
  for_columns(t.value_dim, [&](auto vectors, int64_t l, int64_t lanes) {
    step_columns<D, Before, decltype(vectors)::count>(t, x, from, to, y, l, lanes);
  });
}

template <Decay D>
void recurrent_with(const GlaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  Scratch pieces(scratch);
  float* e = pieces.take(t.key_dim);
  float* s = s_end ? s_end : pieces.take(t.key_dim * t.value_dim);
  if (!s0 || t.length == 0) copy(s0, s, t.key_dim * t.value_dim);
  const float* from = s0 ? s0 : s;
  for (int64_t i = 0; i < t.length; ++i, from = s, y += y_stride) {
    load_decays<D>(t, i, 1, e);
    const Token x{t.q + i * t.q_stride, t.k + i * t.k_stride, t.v + i * t.v_stride, e};
    if (t.reads_before)
      step<D, true>(t, x, from, s, y);
    else
      step<D, false>(t, x, from, s, y);
  }
}

template <Decay D>
void chunked_with(const GlaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  const Chunk c(t, pieces);
  float* s = pieces.take(K * state_stride(V));
  copy_state(s0, V, K, V, s, state_stride(V));
  for (int64_t first = 0; first < t.length; first += kChunk, y += kChunk * y_stride) {
    const Tokens x(t, first);
    Ahead ahead = chunk_ahead<D>(t, first + kChunk);
    if (first + kChunk < t.length) ahead.add({y + kChunk * y_stride, y_stride}, Tokens(t, first + kChunk).n, V);
    load_writes<D>(t, x, c);
    load_reads<D>(t, x, c);
    attention<D>(t, x, c);
    constexpr bool kScaledKeys = D == Decay::vector;
    const Product products[] = {{{kScaledKeys ? c.qd : c.q, K, 1}, {s, state_stride(V)}, K},
                                {{c.a, kChunk, 1, Part::lower}, {c.v, V}, x.n, kScaledKeys ? nullptr : c.before}};
    multiply(x.n, V, products, {.p = y, .stride = y_stride, .ahead = &ahead});
    advance_state<D, false>(t, x.n, c, s, s, ahead);
  }
  if (s_end) copy_state(s, state_stride(V), K, V, s_end, V);
}

// Buffers of the backward pass, beside a Chunk. States are transposed, [V, K], so that key channels are lanes.
struct Backward {
  float* states;   // [chunks, V, K] at the start of each chunk, rows state_stride(K) apart, as those of ds
  float* ds;       // [V, K] gradient of the state at the chunk's end
  float* ds_rows;  // [K, V] the same
  float* da;       // [n, kChunk]
  float* dq;       // [n, K] through the state at the chunk's start; with Decay::vector before the decay from there
  float* dk;       // [n, K] through the state at the chunk's end; with Decay::vector before the decay to there
  float* dg;       // [n, K] with Decay::vector
  float* dy;       // [n, V]
  float* dyd;      // [n, V] before_i dy_i, but with Decay::vector
  float* dv;       // [n, V]
  SENNIT_INLINE Backward(const GlaTask& t, Scratch& pieces) {
    states = pieces.take((t.length + kChunk - 1) / kChunk * state_stride(t.key_dim) * t.value_dim);
    ds = pieces.take(state_stride(t.key_dim) * t.value_dim);
    ds_rows = pieces.take(t.key_dim * state_stride(t.value_dim));
    da = pieces.take(kChunk * kChunk);
    for (float** p : {&dq, &dk, &dg}) *p = pieces.take(kChunk * t.key_dim);
    for (float** p : {&dy, &dyd, &dv}) *p = pieces.take(kChunk * t.value_dim);
  }
};

using Gradients = Gla::Gradients;  // of a chunk: at its first token

template <Decay D>
SENNIT_INLINE void states_at_chunks(const GlaTask& t, const float* s0, const Chunk& c, const Backward& b) {
  const int64_t size = state_stride(t.key_dim) * t.value_dim;
  transpose_state(s0, t.key_dim, t.value_dim, b.states, state_stride(t.key_dim));
  float* s = b.states;
  for (int64_t first = 0; first + kChunk < t.length; first += kChunk, s += size) {
    const Tokens x(t, first);
    Ahead ahead = chunk_ahead<D>(t, first + kChunk);
    load_writes<D>(t, x, c);
    advance_state<D, true>(t, x.n, c, s, s + size, ahead);
  }
}

// dg_t gathers every path from a token (or the state) before t to one at or after t. Each path is a sum of its own, so
// that nothing cancels: after a violent gate the little that passes keeps its precision.

// Decay::vector, the lanes of key channels from l: dg of the paths through the state, from the chunk's start to its
// end, from its start to token i, from token j to its end.
SENNIT_INLINE void state_paths(const GlaTask& t, const Chunk& c, const Backward& b, vf through, int64_t n, int64_t l,
                               int64_t lanes, vf (&dg)[kChunk]) {
  const int64_t K = t.key_dim;
  vf later = through, earlier = zero();
  for (int64_t i = n - 1; i >= 0; --i) {
    const vf own = fma(load_n(c.qd + i * K + l, lanes), load_n(b.dq + i * K + l, lanes), later);
    dg[i] = t.reads_before ? later : own;
    later = own;
  }
  for (int64_t j = 0; j < n; ++j) {
    dg[j] = dg[j] + earlier;
    earlier = fma(load_n(c.kd + j * K + l, lanes), load_n(b.dk + j * K + l, lanes), earlier);
  }
}

// Those within the chunk: their dq and dk, and adds to dg.
template <bool Before>
SENNIT_INLINE void inner_paths(const float* q, const float* k, const float* e, int64_t K, int64_t n, const float* da,
                               int64_t lanes, vf (&dq)[kChunk], vf (&dk)[kChunk], vf (&dg)[kChunk]) {
  for (int64_t i = 0; i < n; ++i) dq[i] = zero();
  for (int64_t j = 0; j < n; ++j) {
    const vf kj = load_n(k + j * K, lanes), here = set(da[j * kChunk + j]);
    vf w = set(1), own_dk = here * load_n(q + j * K, lanes), crossing = zero();
    dq[j] = fma(here, kj, dq[j]);
    for (int64_t i = j + 1; i < n; ++i) {
      const vf qi = load_n(q + i * K, lanes), own = w * load_n(e + i * K, lanes);
      const vf d = (Before ? w : own) * set(da[i * kChunk + j]), to = fma(d, kj, dq[i]);
      w = own;
      dq[i] = to;
      own_dk = fma(d, qi, own_dk);
      if (!Before || i > j + 1) crossing = fma(qi, to, crossing);  // from all tokens up to j to token i
    }
    dk[j] = own_dk;
    if (j + 1 < n) dg[j + 1] = dg[j + 1] + crossing;
  }
}

// Decay::vector: adds dq, dk and dg, from the products in `b`.
void channel_gradients(const GlaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s,
                       const Gradients& to) {
  const int64_t K = t.key_dim;
  for_lanes(K, [&](int64_t l, int64_t lanes) {
    vf dq[kChunk], dk[kChunk], dg[kChunk], before = set(t.scale), after = set(1);
    const vf through = column_dots(s + l, b.ds + l, state_stride(K), t.value_dim, lanes);
    state_paths(t, c, b, through * load_n(c.total + l, lanes), n, l, lanes, dg);
    if (t.reads_before)
      inner_paths<true>(c.q + l, c.k + l, c.e + l, K, n, b.da, lanes, dq, dk, dg);
    else
      inner_paths<false>(c.q + l, c.k + l, c.e + l, K, n, b.da, lanes, dq, dk, dg);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = i * K + l;
      const vf own = before * load_n(c.e + at, lanes);
      store_n(b.dq + at, fma(t.reads_before ? before : own, load_n(b.dq + at, lanes), dq[i]), lanes);
      store_n(b.dg + at, dg[i], lanes);
      before = own;
    }
    for (int64_t j = n - 1; j >= 0; --j) {
      const int64_t at = j * K + l;
      store_n(b.dk + at, fma(after, load_n(b.dk + at, lanes), dk[j]), lanes);
      after = after * load_n(c.e + at, lanes);
    }
  });
  add_rows({b.dq, K}, n, K, to.q, t.q_stride);
  add_rows({b.dk, K}, n, K, to.k, t.k_stride);
  add_rows({b.dg, K}, n, K, to.g, t.g_stride);
}

// Decay::scalar: dg, from the products in `b`; pairs [n, kChunk] is the gradient of each pair's log decay.
void token_decay_gradients(const GlaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s,
                           const float* pairs, Sum to) {
  const int64_t K = t.key_dim, back = reads_back(t);
  float dg[kChunk] = {};
  add_crossing(pairs + back * kChunk, n - back, dg);
  float later = c.total[0] * state_dot(s, b.ds, state_stride(K), t.value_dim, K), earlier = 0;
  for (int64_t i = n - 1; i >= 0; --i) {
    const float own = later + dot(c.q + i * K, b.dq + i * K, K);
    dg[i] += t.reads_before ? later : own;
    later = own;
  }
  for (int64_t j = 0; j < n; ++j) {
    dg[j] += earlier;
    earlier += dot(c.k + j * K, b.dk + j * K, K);
  }
  add_rows({dg, 1}, n, 1, to, t.g_stride);
}

// Decay::none and Decay::scalar: adds dq, dk and dg, from the products in `b` and the gradient da of the pairs.
template <Decay D>
SENNIT_INLINE void token_gradients(const GlaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s,
                                   const Gradients& to) {
  const int64_t K = t.key_dim;
  if constexpr (D == Decay::scalar) {
    float pairs[kChunk * kChunk];
    for_lanes(n * kChunk,
              [&](int64_t i, int64_t l) { store_n(pairs + i, load_n(c.a + i, l) * load_n(b.da + i, l), l); });
    token_decay_gradients(t, n, c, b, s, pairs, to.g);
  }
  scale_pairs<D>(t, n, c, b.da);
  multiply({n, K, n}, {b.da, kChunk, 1, Part::lower}, {c.k, K}, {.p = b.dq, .stride = K, .start = b.dq});
  multiply({n, K, n}, {b.da, 1, kChunk, Part::upper}, {c.q, K}, {.p = b.dk, .stride = K, .start = b.dk});
  add_rows({b.dq, K}, n, K, to.q, t.q_stride);
  add_rows({b.dk, K}, n, K, to.k, t.k_stride);
}

// The next chunk to be done is that before this one.
template <Decay D>
SENNIT_INLINE Ahead gradients_ahead(const GlaTask& t, const Tokens& x, Rows dy, const Gradients& to) {
  Ahead ahead = chunk_ahead<D>(t, x.first - kChunk);
  if (x.first > 0) ahead.add({dy[x.first - kChunk], dy.stride}, kChunk, t.value_dim);
  ahead.add({to.v.at, t.v_stride}, x.n, t.value_dim);
  ahead.add({to.q.at, t.q_stride}, x.n, t.key_dim);
  ahead.add({to.k.at, t.k_stride}, x.n, t.key_dim);
  if (D == Decay::vector) ahead.add({to.g.at, t.g_stride}, x.n, t.key_dim);
  return ahead;
}

template <Decay D>
void backward_chunk(const GlaTask& t, const Tokens& x, Rows dy_rows, const Chunk& c, const Backward& b, const float* s,
                    const Gradients& to) {
  constexpr bool kScaledKeys = D == Decay::vector;
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  Ahead ahead = gradients_ahead<D>(t, x, dy_rows, to);
  gather({dy_rows[x.first], dy_rows.stride}, n, V, b.dy);
  load_writes<D>(t, x, c);
  load_reads<D>(t, x, c);
  attention<D>(t, x, c);
  lower_products({b.dy, V}, {c.v, V}, V, n, b.da, reads_back(t));
  if (!kScaledKeys) scaled_rows({b.dy, V}, c.before, n, V, b.dyd);

  const int64_t stride = state_stride(K);
  transpose(b.ds, stride, V, K, b.ds_rows, state_stride(V));
  const Product dv[] = {{{kScaledKeys ? c.kd : c.k, K, 1}, {b.ds_rows, state_stride(V)}, K},
                        {{c.a, 1, kChunk, Part::upper}, {b.dy, V}, n, kScaledKeys ? nullptr : c.after}};
  multiply(n, V, dv, {.p = b.dv, .stride = V, .ahead = &ahead});
  add_rows({b.dv, V}, n, V, to.v, t.v_stride);
  const float *read = kScaledKeys ? b.dy : b.dyd, *written = kScaledKeys ? c.v : c.vd;
  multiply({n, K, V}, {read, V, 1}, {s, stride}, {.p = b.dq, .stride = K, .ahead = &ahead});
  multiply({n, K, V}, {written, V, 1}, {b.ds, stride}, {.p = b.dk, .stride = K, .ahead = &ahead});
  if constexpr (kScaledKeys) {
    scale_pairs<D>(t, n, c, b.da);
    channel_gradients(t, n, c, b, s, to);
  } else {
    token_gradients<D>(t, n, c, b, s, to);
  }
  multiply({V, K, n}, {read, 1, V}, {kScaledKeys ? c.qd : c.q, K},
           {.p = b.ds, .stride = stride, .start = b.ds, .column_scale = c.total, .ahead = &ahead});
}

template <Decay D>
void backward_with(const GlaTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   const Gradients& to, float* ds0, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  const Chunk c(t, pieces);
  const Backward b(t, pieces);
  const int64_t stride = state_stride(K);
  transpose_state(ds_end, K, V, b.ds, stride);
  if (t.length > 0) states_at_chunks<D>(t, s0, c, b);
  for (int64_t chunk = (t.length + kChunk - 1) / kChunk - 1; chunk >= 0; --chunk) {
    const int64_t first = chunk * kChunk;
    const Gradients here{.q = to.q.from(first * t.q_stride),
                         .k = to.k.from(first * t.k_stride),
                         .v = to.v.from(first * t.v_stride),
                         .g = to.g.from(first * t.g_stride)};
    backward_chunk<D>(t, Tokens(t, first), {dy, dy_stride}, c, b, b.states + chunk * stride * V, here);
  }
  if (!ds0) return;
  transpose(b.ds, stride, V, K, b.ds_rows, state_stride(V));
  add_rows({b.ds_rows, state_stride(V)}, K, V, {ds0}, V);
}

int64_t scratch_floats(const GlaTask& t) {
  Scratch pieces(nullptr);
  Chunk(t, pieces);
  pieces.take(t.key_dim * state_stride(t.value_dim));
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

void backward(const GlaTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
              const Gradients& to, float* ds0, float* scratch) {
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
