#include "kernels/delta.h"

#include "kernels/chunk.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

SENNIT_INLINE float decay_at(const DeltaTask& t, int64_t i) {
  return t.g ? sum(keep_n(exp_decay(set(t.g[i * t.g_stride])), 1)) : 1.0f;
}

// The J vectors of S, from column l, through token i: S <- alpha S + k (beta (v - alpha S^T k))^T. Stores may alias the
// task: what the loops need is copied. What is read of S is summed in two parts, not to wait for each addition.
template <int J>
SENNIT_INLINE void step_columns(const DeltaTask& t, int64_t token, float alpha, const float* from, float* to, float* y,
                                int64_t l, int64_t lanes) {
  const float* next = token + 1 == t.length ? t.next : nullptr;
  const int64_t key_dim = t.key_dim, stride = t.value_dim;
  const float *q = t.q + token * t.q_stride, *k = t.k + token * t.k_stride, *v = t.v + token * t.v_stride + l;
  float* errors = t.errors ? t.errors + token * t.v_stride + l : nullptr;
  const vf decay = set(alpha), beta = set(t.beta[token * t.beta_stride]);
  vf u[J], odd[J], out[J];
  for (int j = 0; j < J; ++j) u[j] = odd[j] = out[j] = zero();
  from += l, to += l;
  int64_t i = 0;
  for (const float* row = from; i + 2 <= key_dim; i += 2, row += 2 * stride) {
    if (next) fetch_row(next + i / 2 * stride + l, J * kLanes);
    for (int j = 0; j < J; ++j) {
      u[j] = fma(set(k[i]), load_n(row + j * kLanes, lanes), u[j]);
      odd[j] = fma(set(k[i + 1]), load_n(row + stride + j * kLanes, lanes), odd[j]);
    }
  }
  for (int j = 0; j < J; ++j) {
    if (i < key_dim) u[j] = fma(set(k[i]), load_n(from + i * stride + j * kLanes, lanes), u[j]);
    const vf error = fnma(decay, u[j] + odd[j], load_n(v + j * kLanes, lanes));
    if (errors) store_n(errors + j * kLanes, error, lanes);
    u[j] = beta * error;
  }
  for (i = 0; i < key_dim; ++i, from += stride, to += stride) {
    const vf key = set(k[i]), query = set(q[i]);
    if (next && i % 2 == 0) fetch_row(next + (key_dim + i) / 2 * stride + l, J * kLanes);
    for (int j = 0; j < J; ++j) {
      const vf s = fma(key, u[j], decay * load_n(from + j * kLanes, lanes));
      store_n(to + j * kLanes, s, lanes);
      out[j] = fma(query, s, out[j]);
    }
  }
  for (int j = 0; j < J; ++j) store_n(y + l + j * kLanes, out[j] * set(t.scale), lanes);
}

void recurrent(const DeltaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  Scratch pieces(scratch);
  float* s = s_end ? s_end : pieces.take(t.key_dim * t.value_dim);
  if (!s0 || t.length == 0) copy(s0, s, t.key_dim * t.value_dim);
  const float* from = s0 ? s0 : s;
  for (int64_t i = 0; i < t.length; ++i, from = s, y += y_stride) {
    const float alpha = decay_at(t, i);
    for_columns(t.value_dim, [&](auto vectors, int64_t l, int64_t lanes) {
      step_columns<decltype(vectors)::count>(t, i, alpha, from, s, y, l, lanes);
    });
  }
}

// A chunk of n tokens. Unrolled from its start, S_t = alpha_t S_{t-1} + k_t u_t^T reads
//   w_i = v_i - before_i S_0^T k_i - sum_{j<i} m_ij u_j,   u_i = beta_i w_i   (a unit lower triangular system: the UT
//   form) y_i = scale before_i S_0^T q_i + sum_{j<=i} a_ij u_j,   S_n = total S_0 + sum_j k_j (after_j u_j)^T
// where w are the errors of the task, and before_i = alpha_1 ... alpha_i, after_j = alpha_{j+1} ... alpha_n, total =
// alpha_1 ... alpha_n.
struct Chunk {
  float *alpha, *after, *beta;  // [n]
  float *read, *erase;          // [n] scale before_i, -before_i
  float* total;                 // [K], all the same
  float* pair;                  // [n, kChunk] alpha_{j+1} ... alpha_i for j <= i, else 0
  float *q, *k;                 // [n, K] the chunk's rows
  float *w, *u, *ud;            // [n, V]; after_j u_j
  float* a;                     // [n, kChunk] scale pair_ij q_i.k_j for j <= i, else 0
  float* m;                     // [n, kChunk] pair_ij k_i.k_j for j < i, else 0
  SENNIT_INLINE Chunk(const DeltaTask& t, Scratch& pieces) {
    for (float** p : {&alpha, &after, &beta, &read, &erase}) *p = pieces.take(kChunk);
    total = pieces.take(t.key_dim);
    for (float** p : {&pair, &a, &m}) *p = pieces.take(kChunk * kChunk);
    for (float** p : {&q, &k}) *p = pieces.take(kChunk * t.key_dim);
    for (float** p : {&w, &u, &ud}) *p = pieces.take(kChunk * t.value_dim);
  }
};

SENNIT_INLINE void clear_diagonal(float* pairs) {
  for (int64_t i = 0; i < kChunk; ++i) pairs[i * kChunk + i] = 0;
}

// A chunk's decays, betas and keys.
void load_keys(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  const int64_t n = x.n;
  float product = 1;
  for (int64_t i = 0; i < n; ++i) {
    product *= c.alpha[i] = decay_at(t, x.first + i);
    c.read[i] = t.scale * product, c.erase[i] = -product;
    c.beta[i] = t.beta[(x.first + i) * t.beta_stride];
  }
  for_lanes(t.key_dim, [&](int64_t l, int64_t k) { store_n(c.total + l, set(product), k); });
  product = 1;
  for (int64_t j = n - 1; j >= 0; product *= c.alpha[j--]) c.after[j] = product;
  gather({t.k + x.first * t.k_stride, t.k_stride}, n, t.key_dim, c.k);
}

// q, pair, a and m of a chunk whose keys are loaded.
void load_pairs(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  gather({t.q + x.first * t.q_stride, t.q_stride}, x.n, t.key_dim, c.q);
  const Rows q{c.q, t.key_dim}, k{c.k, t.key_dim};
  lower_products(q, k, t.key_dim, x.n, c.a);
  lower_products(k, k, t.key_dim, x.n, c.m);
  pair_decays(c.alpha, x.n, c.pair);
  for_lanes(kChunk * kChunk, [&](int64_t i, int64_t lanes) {
    const vf pair = load_n(c.pair + i, lanes);
    store_n(c.a + i, load_n(c.a + i, lanes) * pair * set(t.scale), lanes);
    store_n(c.m + i, load_n(c.m + i, lanes) * pair, lanes);
  });
  clear_diagonal(c.m);
}

// w_i -= sum_{j<i} m_ij u_j and u, J vectors from column l.
template <int J>
SENNIT_INLINE void solve_columns(const Chunk& c, int64_t n, int64_t V, int64_t l, int64_t lanes) {
  for (int64_t i = 0; i < n; ++i) {
    vf w[J];
    for (int p = 0; p < J; ++p) w[p] = load_n(c.w + i * V + l + p * kLanes, lanes);
    for (int64_t j = 0; j < i; ++j)
      for (int p = 0; p < J; ++p)
        w[p] = fnma(set(c.m[i * kChunk + j]), load_n(c.u + j * V + l + p * kLanes, lanes), w[p]);
    for (int p = 0; p < J; ++p) {
      store_n(c.w + i * V + l + p * kLanes, w[p], lanes);
      store_n(c.u + i * V + l + p * kLanes, w[p] * set(c.beta[i]), lanes);
    }
  }
}

// The transposed system, in place: du_i -= sum_{j>i} beta_j m_ji du_j.
template <int J>
SENNIT_INLINE void solve_back_columns(const Chunk& c, float* du, int64_t n, int64_t V, int64_t l, int64_t lanes) {
  for (int64_t i = n - 1; i >= 0; --i) {
    vf rest[J];
    for (int p = 0; p < J; ++p) rest[p] = load_n(du + i * V + l + p * kLanes, lanes);
    for (int64_t j = i + 1; j < n; ++j)
      for (int p = 0; p < J; ++p)
        rest[p] = fnma(set(c.beta[j] * c.m[j * kChunk + i]), load_n(du + j * V + l + p * kLanes, lanes), rest[p]);
    for (int p = 0; p < J; ++p) store_n(du + i * V + l + p * kLanes, rest[p], lanes);
  }
}

// w, u and ud of a chunk that begins with the state s.
void solve(const DeltaTask& t, const Tokens& x, const Chunk& c, const float* s, Ahead& ahead) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  multiply({n, V, K}, {c.k, K, 1}, {s, state_stride(V)}, {.p = c.w, .stride = V, .ahead = &ahead});
  for (int64_t i = 0; i < n; ++i) {
    const float* v = t.v + (x.first + i) * t.v_stride;
    for_lanes(V, [&](int64_t j, int64_t lanes) {
      float* to = c.w + i * V + j;
      store_n(to, fma(set(c.erase[i]), load_n(to, lanes), load_n(v + j, lanes)), lanes);
    });
  }
  for_columns(
      V, [&](auto vectors, int64_t l, int64_t lanes) { solve_columns<decltype(vectors)::count>(c, n, V, l, lanes); });
  scaled_rows({c.u, V}, c.after, n, V, c.ud);
}

// w, u and ud from the errors that the forward pass left.
void load_errors(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  gather({t.errors + x.first * t.v_stride, t.v_stride}, x.n, t.value_dim, c.w);
  scaled_rows({c.w, t.value_dim}, c.beta, x.n, t.value_dim, c.u);
  scaled_rows({c.u, t.value_dim}, c.after, x.n, t.value_dim, c.ud);
}

void solve_back(const Chunk& c, float* du, int64_t n, int64_t V) {
  for_columns(V, [&](auto vectors, int64_t l, int64_t lanes) {
    solve_back_columns<decltype(vectors)::count>(c, du, n, V, l, lanes);
  });
}

// What the chunk from token `first` reads and writes, if there is one.
SENNIT_INLINE Ahead chunk_ahead(const DeltaTask& t, int64_t first, Rows y) {
  Ahead ahead = tokens_ahead(t, first);
  if (!is_token(t, first)) return ahead;
  const int64_t n = Tokens(t, first).n;
  ahead.add({y[first], y.stride}, n, t.value_dim);
  if (t.errors) ahead.add({t.errors + first * t.v_stride, t.v_stride}, n, t.value_dim);
  return ahead;
}

void chunked(const DeltaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  float* s = pieces.take(K * state_stride(V));
  const Chunk c(t, pieces);
  copy_state(s0, V, K, V, s, state_stride(V));
  for (int64_t first = 0; first < t.length; first += kChunk) {
    const Tokens x(t, first);
    Ahead ahead = chunk_ahead(t, first + kChunk, {y, y_stride});
    load_keys(t, x, c);
    load_pairs(t, x, c);
    solve(t, x, c, s, ahead);
    if (t.errors) copy_state(c.w, V, x.n, V, t.errors + first * t.v_stride, t.v_stride);
    const Product products[] = {{{c.q, K, 1}, {s, state_stride(V)}, K},
                                {{c.a, kChunk, 1, Part::lower}, {c.u, V}, x.n, c.read}};
    multiply(x.n, V, products, {.p = y + first * y_stride, .stride = y_stride, .ahead = &ahead});
    multiply({K, V, x.n}, {c.k, 1, K}, {c.ud, V},
             {.p = s, .stride = state_stride(V), .start = s, .row_scale = c.total, .ahead = &ahead});
  }
  if (s_end) copy_state(s, state_stride(V), K, V, s_end, V);
}

int64_t scratch_floats(const DeltaTask& t) {
  Scratch pieces(nullptr);
  pieces.take(t.key_dim * state_stride(t.value_dim));
  Chunk(t, pieces);
  return pieces.needed();
}

// Buffers of the backward pass, beside a Chunk. States are transposed, [V, K], so that key channels are lanes.
struct Backward {
  float* states;        // [chunks, V, K] at the start of each chunk, rows state_stride(K) apart, as those of ds
  float* ds;            // [V, K] gradient of the state at the chunk's end
  float* ds_rows;       // [K, V] the same
  float* dy;            // [n, V]
  float *du, *dw;       // [n, V]
  float *dyd, *dwd;     // [n, V] read_i dy_i and -before_i dw_i
  float *dq, *dk, *dn;  // [n, K] through the state: as q_i reads it, as k_j is left in it, as k_i reads it
  float *da, *dm;       // [n, kChunk] gradients of q_i.k_j and of k_i.k_j
  float* weight;        // [n, kChunk] gradient of the log decay from token j to token i
  SENNIT_INLINE Backward(const DeltaTask& t, Scratch& pieces) {
    const int64_t K = t.key_dim, V = t.value_dim;
    states = pieces.take((t.length + kChunk - 1) / kChunk * state_stride(K) * V);
    ds = pieces.take(state_stride(K) * V);
    ds_rows = pieces.take(K * state_stride(V));
    for (float** p : {&dy, &du, &dw, &dyd, &dwd}) *p = pieces.take(kChunk * V);
    for (float** p : {&dq, &dk, &dn}) *p = pieces.take(kChunk * K);
    for (float** p : {&da, &dm, &weight}) *p = pieces.take(kChunk * kChunk);
  }
};

// Every chunk's first state.
void states_at_chunks(const DeltaTask& t, const float* s0, const Chunk& c, const Backward& b) {
  const int64_t K = t.key_dim, V = t.value_dim, stride = state_stride(K);
  float* s = b.states;
  transpose_state(s0, K, V, s, stride);
  for (int64_t first = 0; first + kChunk < t.length; first += kChunk, s += stride * V) {
    const Tokens x(t, first), next(t, first + kChunk);
    Ahead ahead;
    ahead.add({t.k + next.first * t.k_stride, t.k_stride}, next.n, K);
    ahead.add({t.errors + next.first * t.v_stride, t.v_stride}, next.n, V);
    load_keys(t, x, c);
    load_errors(t, x, c);
    multiply({V, K, x.n}, {c.ud, 1, V}, {c.k, K},
             {.p = s + stride * V, .stride = stride, .start = s, .column_scale = c.total, .ahead = &ahead});
  }
}

// The products with the states: du, dw, dq, dk, dn; adds dv.
void state_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s, Sum dv,
                     Ahead& ahead) {
  const int64_t K = t.key_dim, V = t.value_dim;
  const int64_t stride = state_stride(K);
  transpose(b.ds, stride, V, K, b.ds_rows, state_stride(V));
  const Product du[] = {{{c.k, K, 1}, {b.ds_rows, state_stride(V)}, K},
                        {{c.a, 1, kChunk, Part::upper}, {b.dy, V}, n, c.after}};
  multiply(n, V, du, {.p = b.du, .stride = V, .ahead = &ahead});
  solve_back(c, b.du, n, V);
  scaled_rows({b.du, V}, c.beta, n, V, b.dw);
  add_rows({b.dw, V}, n, V, dv, t.v_stride);
  scaled_rows({b.dy, V}, c.read, n, V, b.dyd);
  scaled_rows({b.dw, V}, c.erase, n, V, b.dwd);
  multiply({n, K, V}, {b.dyd, V, 1}, {s, stride}, {.p = b.dq, .stride = K, .ahead = &ahead});
  multiply({n, K, V}, {b.dwd, V, 1}, {s, stride}, {.p = b.dn, .stride = K, .ahead = &ahead});
  multiply({n, K, V}, {c.ud, V, 1}, {b.ds, stride}, {.p = b.dk, .stride = K, .ahead = &ahead});
}

// Gradients by the pairs of tokens of a chunk: da, dm and the weights of their decays.
void pair_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b) {
  const int64_t V = t.value_dim;
  lower_products({b.dy, V}, {c.u, V}, V, n, b.da);
  lower_products({b.dw, V}, {c.u, V}, V, n, b.dm);
  clear_diagonal(b.dm);
  for_lanes(n * kChunk, [&](int64_t at, int64_t lanes) {
    const vf pair = load_n(c.pair + at, lanes), da = load_n(b.da + at, lanes), dm = -load_n(b.dm + at, lanes);
    store_n(b.weight + at, fma(da, load_n(c.a + at, lanes), dm * load_n(c.m + at, lanes)), lanes);
    store_n(b.da + at, da * pair * set(t.scale), lanes);
    store_n(b.dm + at, dm * pair, lanes);
  });
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) b.dm[j * kChunk + i] = b.dm[i * kChunk + j];  // k_i.k_j is symmetric
}

// dg_t gathers every path that crosses from before token t to it: within the chunk, from the state to token i (later),
// from token j to the state at the end (earlier), and from state to state. All are sums: nothing cancels.
void decay_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s, Sum to) {
  const int64_t K = t.key_dim;
  float dg[kChunk] = {};
  add_crossing(b.weight, n, dg);
  float later = c.total[0] * state_dot(s, b.ds, state_stride(K), t.value_dim, K), earlier = 0;
  for (int64_t i = n - 1; i >= 0; --i) {
    later += dot(c.q + i * K, b.dq + i * K, K) + dot(c.k + i * K, b.dn + i * K, K);
    dg[i] += later;
  }
  for (int64_t j = 0; j < n; ++j) {
    dg[j] += earlier;
    earlier += dot(c.k + j * K, b.dk + j * K, K);
  }
  add_rows({dg, 1}, n, 1, to, t.g_stride);
}

// Adds what the pairs give to b.dq and b.dk, which then are the gradients of q and k.
void key_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b) {
  const int64_t K = t.key_dim;
  const Rows q{c.q, K}, k{c.k, K};
  multiply({n, K, n}, {b.da, kChunk, 1, Part::lower}, k, {.p = b.dq, .stride = K, .start = b.dq});
  for_lanes(n * K, [&](int64_t i, int64_t l) { store_n(b.dk + i, load_n(b.dk + i, l) + load_n(b.dn + i, l), l); });
  const Product dk[] = {{{b.da, 1, kChunk, Part::upper}, q, n}, {{b.dm, kChunk, 1}, k, n}};
  multiply(n, K, dk, {.p = b.dk, .stride = K, .start = b.dk});
}

// The next chunk to be done is that before this one.
SENNIT_INLINE Ahead gradients_ahead(const DeltaTask& t, const Tokens& x, Rows dy, const Delta::Gradients& to) {
  Ahead ahead;
  if (const int64_t first = x.first - kChunk; first >= 0) {
    ahead.add({t.q + first * t.q_stride, t.q_stride}, kChunk, t.key_dim);
    ahead.add({t.k + first * t.k_stride, t.k_stride}, kChunk, t.key_dim);
    ahead.add({t.errors + first * t.v_stride, t.v_stride}, kChunk, t.value_dim);
    ahead.add({dy[first], dy.stride}, kChunk, t.value_dim);
  }
  ahead.add({to.v.at, t.v_stride}, x.n, t.value_dim);
  ahead.add({to.q.at, t.q_stride}, x.n, t.key_dim);
  ahead.add({to.k.at, t.k_stride}, x.n, t.key_dim);
  return ahead;
}

// `to` is at the chunk's first token.
void backward_chunk(const DeltaTask& t, const Tokens& x, Rows dy, const Chunk& c, const Backward& b, const float* s,
                    const Delta::Gradients& to) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  Ahead ahead = gradients_ahead(t, x, dy, to);
  gather({dy[x.first], dy.stride}, n, V, b.dy);
  load_keys(t, x, c);
  load_pairs(t, x, c);
  load_errors(t, x, c);
  state_gradients(t, n, c, b, s, to.v, ahead);
  pair_gradients(t, n, c, b);
  float dbeta[kChunk];
  for (int64_t i = 0; i < n; ++i) dbeta[i] = dot(b.du + i * V, c.w + i * V, V);
  add_rows({dbeta, 1}, n, 1, to.beta, t.beta_stride);
  if (t.g) decay_gradients(t, n, c, b, s, to.g);
  key_gradients(t, n, c, b);
  add_rows({b.dq, K}, n, K, to.q, t.q_stride);
  add_rows({b.dk, K}, n, K, to.k, t.k_stride);
  const Product ds[] = {{{b.dyd, 1, V}, {c.q, K}, n}, {{b.dwd, 1, V}, {c.k, K}, n}};
  multiply(V, K, ds, {.p = b.ds, .stride = state_stride(K), .start = b.ds, .column_scale = c.total, .ahead = &ahead});
}

void backward(const DeltaTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
              const Delta::Gradients& into, float* ds0, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim, stride = state_stride(K);
  Scratch pieces(scratch);
  const Chunk c(t, pieces);
  const Backward b(t, pieces);
  transpose_state(ds_end, K, V, b.ds, stride);
  if (t.length > 0) states_at_chunks(t, s0, c, b);
  for (int64_t chunk = (t.length + kChunk - 1) / kChunk - 1; chunk >= 0; --chunk) {
    const int64_t first = chunk * kChunk;
    backward_chunk(t, Tokens(t, first), {dy, dy_stride}, c, b, b.states + chunk * stride * V,
                   {.q = into.q.from(first * t.q_stride),
                    .k = into.k.from(first * t.k_stride),
                    .v = into.v.from(first * t.v_stride),
                    .g = into.g.from(first * t.g_stride),
                    .beta = into.beta.from(first * t.beta_stride)});
  }
  if (!ds0) return;
  transpose(b.ds, stride, V, K, b.ds_rows, state_stride(V));
  add_rows({b.ds_rows, state_stride(V)}, K, V, {ds0}, V);
}

int64_t backward_scratch_floats(const DeltaTask& t) {
  Scratch pieces(nullptr);
  Chunk(t, pieces);
  Backward(t, pieces);
  return pieces.needed();
}

}  // namespace

const Delta delta_table = {
    .scratch_floats = scratch_floats,
    .backward_scratch_floats = backward_scratch_floats,
    .recurrent = recurrent,
    .chunked = chunked,
    .backward = backward,
};

}  // namespace sennit::kernels::SENNIT_LEVEL
