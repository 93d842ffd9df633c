#include "kernels/delta.h"

#include "kernels/chunk.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

SENNIT_INLINE float decay_at(const DeltaTask& t, int64_t i) {
  return t.g ? sum(keep_n(exp(set(t.g[i * t.g_stride])), 1)) : 1.0f;
}

// The J vectors of S, from column l, through token i: S <- alpha S + k (beta (v - alpha S^T k))^T.
template <int J>
SENNIT_INLINE void step_columns(const DeltaTask& t, int64_t token, float alpha, const float* from, float* to, float* y,
                                int64_t l, int64_t lanes) {
  const float *q = t.q + token * t.q_stride, *k = t.k + token * t.k_stride, *v = t.v + token * t.v_stride + l;
  const vf decay = set(alpha), beta = set(t.beta[token * t.beta_stride]);
  vf u[J], out[J];
  for (int j = 0; j < J; ++j) u[j] = out[j] = zero();
  for (int64_t i = 0; i < t.key_dim; ++i)
    for (int j = 0; j < J; ++j) u[j] = fma(set(k[i]), load_n(from + i * t.value_dim + l + j * kLanes, lanes), u[j]);
  for (int j = 0; j < J; ++j) u[j] = beta * fnma(decay, u[j], load_n(v + j * kLanes, lanes));
  for (int64_t i = 0; i < t.key_dim; ++i)
    for (int j = 0; j < J; ++j) {
      const int64_t at = i * t.value_dim + l + j * kLanes;
      const vf s = fma(set(k[i]), u[j], decay * load_n(from + at, lanes));
      store_n(to + at, s, lanes);
      out[j] = fma(set(q[i]), s, out[j]);
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
    int64_t l = 0;
    for (; l + 4 * kLanes <= t.value_dim; l += 4 * kLanes) step_columns<4>(t, i, alpha, from, s, y, l, kLanes);
    for (; l + kLanes <= t.value_dim; l += kLanes) step_columns<1>(t, i, alpha, from, s, y, l, kLanes);
    if (l < t.value_dim) step_columns<1>(t, i, alpha, from, s, y, l, t.value_dim - l);
  }
}

// The tokens of a chunk.
struct Tokens {
  int64_t first, n;
  Rows q, k, v;
  SENNIT_INLINE Tokens(const DeltaTask& t, int64_t begin)
      : first(begin),
        n(t.length - begin < kChunk ? t.length - begin : kChunk),
        q{t.q + begin * t.q_stride, t.q_stride},
        k{t.k + begin * t.k_stride, t.k_stride},
        v{t.v + begin * t.v_stride, t.v_stride} {}
};

// A chunk of n tokens. Unrolled from its start, S_t = alpha_t S_{t-1} + k_t u_t^T reads
//   z_i = v_i - before_i S_0^T k_i,   u_i + sum_{j<i} l_ij u_j = beta_i z_i   (a unit lower triangular system: the UT
//   form) y_i = scale before_i S_0^T q_i + sum_{j<=i} a_ij u_j,   S_n = total S_0 + sum_j after_j k_j u_j^T
// with before_i = alpha_1 ... alpha_i, after_j = alpha_{j+1} ... alpha_n, total = alpha_1 ... alpha_n.
struct Chunk {
  float *before, *after, *beta;  // [n]
  float* total;                  // [K], all the same
  float* pair;                   // [n, kChunk] alpha_{j+1} ... alpha_i for j <= i, else 0
  float* qd;                     // [n, K] scale before_i q_i
  float* kd;                     // [n, K] after_j k_j
  float* kn;                     // [n, K] -before_i k_i
  float* a;                      // [n, kChunk] scale pair_ij q_i.k_j for j <= i, else 0
  float* m;                      // [n, kChunk] pair_ij k_i.k_j for j < i, else 0;  l_ij = beta_i m_ij
  SENNIT_INLINE Chunk(const DeltaTask& t, Scratch& pieces) {
    for (float** p : {&before, &after, &beta}) *p = pieces.take(kChunk);
    total = pieces.take(t.key_dim);
    for (float** p : {&pair, &a, &m}) *p = pieces.take(kChunk * kChunk);
    for (float** p : {&qd, &kd, &kn}) *p = pieces.take(kChunk * t.key_dim);
  }
};

SENNIT_INLINE void clear_diagonal(float* pairs) {
  for (int64_t i = 0; i < kChunk; ++i) pairs[i * kChunk + i] = 0;
}

void load_decays(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  const int64_t n = x.n;
  float alpha[kChunk], product = 1;
  for (int64_t i = 0; i < n; ++i) {
    alpha[i] = decay_at(t, x.first + i);
    c.before[i] = product *= alpha[i];
    c.beta[i] = t.beta[(x.first + i) * t.beta_stride];
  }
  for_lanes(t.key_dim, [&](int64_t l, int64_t k) { store_n(c.total + l, set(product), k); });
  product = 1;
  for (int64_t j = n - 1; j >= 0; product *= alpha[j--]) c.after[j] = product;
  copy(nullptr, c.pair, kChunk * kChunk);
  for (int64_t j = 0; j < n; ++j) {
    c.pair[j * kChunk + j] = product = 1;
    for (int64_t i = j + 1; i < n; ++i) c.pair[i * kChunk + j] = product *= alpha[i];
  }
}

void decayed_rows(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  const int64_t K = t.key_dim;
  for (int64_t i = 0; i < x.n; ++i)
    for_lanes(K, [&](int64_t l, int64_t lanes) {
      const vf key = load_n(x.k[i] + l, lanes);
      store_n(c.qd + i * K + l, load_n(x.q[i] + l, lanes) * set(t.scale * c.before[i]), lanes);
      store_n(c.kd + i * K + l, key * set(c.after[i]), lanes);
      store_n(c.kn + i * K + l, key * set(-c.before[i]), lanes);
    });
}

void decayed_pairs(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  lower_products(x.q, x.k, t.key_dim, x.n, c.a);
  lower_products(x.k, x.k, t.key_dim, x.n, c.m);
  for_lanes(kChunk * kChunk, [&](int64_t i, int64_t lanes) {
    const vf pair = load_n(c.pair + i, lanes);
    store_n(c.a + i, load_n(c.a + i, lanes) * pair * set(t.scale), lanes);
    store_n(c.m + i, load_n(c.m + i, lanes) * pair, lanes);
  });
  clear_diagonal(c.m);
}

SENNIT_INLINE void prepare(const DeltaTask& t, const Tokens& x, const Chunk& c) {
  load_decays(t, x, c);
  decayed_rows(t, x, c);
  decayed_pairs(t, x, c);
}

// u_i = beta_i z_i - sum_{j<i} l_ij u_j, J vectors from column l.
template <int J>
SENNIT_INLINE void solve_columns(const Chunk& c, const float* z, float* u, int64_t n, int64_t V, int64_t l,
                                 int64_t lanes) {
  for (int64_t i = 0; i < n; ++i) {
    vf rest[J];
    for (int p = 0; p < J; ++p) rest[p] = load_n(z + i * V + l + p * kLanes, lanes);
    for (int64_t j = 0; j < i; ++j)
      for (int p = 0; p < J; ++p)
        rest[p] = fnma(set(c.m[i * kChunk + j]), load_n(u + j * V + l + p * kLanes, lanes), rest[p]);
    for (int p = 0; p < J; ++p) store_n(u + i * V + l + p * kLanes, rest[p] * set(c.beta[i]), lanes);
  }
}

// The transposed system, in place: du_i <- du_i - sum_{j>i} l_ji du_j.
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

// u [n, V] from z, which is v + kn S.
void solve(const DeltaTask& t, const Tokens& x, const Chunk& c, const float* s, float* z, float* u) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  gather(x.v, n, V, z);
  multiply({n, V, K}, {c.kn, K, 1}, {s, V}, {.p = z, .stride = V, .start = z});
  int64_t l = 0;
  for (; l + 4 * kLanes <= V; l += 4 * kLanes) solve_columns<4>(c, z, u, n, V, l, kLanes);
  for (; l + kLanes <= V; l += kLanes) solve_columns<1>(c, z, u, n, V, l, kLanes);
  if (l < V) solve_columns<1>(c, z, u, n, V, l, V - l);
}

void solve_back(const Chunk& c, float* du, int64_t n, int64_t V) {
  int64_t l = 0;
  for (; l + 4 * kLanes <= V; l += 4 * kLanes) solve_back_columns<4>(c, du, n, V, l, kLanes);
  for (; l + kLanes <= V; l += kLanes) solve_back_columns<1>(c, du, n, V, l, kLanes);
  if (l < V) solve_back_columns<1>(c, du, n, V, l, V - l);
}

SENNIT_INLINE void advance_state(const DeltaTask& t, int64_t n, const Chunk& c, const float* u, float* s) {
  const int64_t K = t.key_dim, V = t.value_dim;
  multiply({K, V, n}, {c.kd, 1, K}, {u, V}, {.p = s, .stride = V, .start = s, .row_scale = c.total});
}

void chunked(const DeltaTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  float* own = pieces.take(K * V);
  const Chunk c(t, pieces);
  float *z = pieces.take(kChunk * V), *u = pieces.take(kChunk * V), *s = s_end ? s_end : own;
  copy(s0, s, K * V);
  for (int64_t first = 0; first < t.length; first += kChunk, y += kChunk * y_stride) {
    const Tokens x(t, first);
    prepare(t, x, c);
    solve(t, x, c, s, z, u);
    multiply({x.n, V, K}, {c.qd, K, 1}, {s, V}, {.p = y, .stride = y_stride});
    add_lower_multiply(x.n, V, {c.a, kChunk, 1}, {u, V}, y, y_stride);
    advance_state(t, x.n, c, u, s);
  }
}

int64_t scratch_floats(const DeltaTask& t) {
  Scratch pieces(nullptr);
  pieces.take(t.key_dim * t.value_dim);
  Chunk(t, pieces);
  pieces.take(kChunk * t.value_dim);
  pieces.take(kChunk * t.value_dim);
  return pieces.needed();
}

// Buffers of the backward pass, beside a Chunk. States are transposed, [V, K], so that key channels are lanes.
struct Backward {
  float *a, *m;         // [chunks, kChunk, kChunk] of every chunk
  float* states;        // [chunks, V, K] at the start of each chunk
  float *z, *u;         // [length, V]
  float* ds;            // [V, K] gradient of the state at the chunk's end
  float* rows;          // [K, V] a state in the layout of the interface
  float* dy;            // [n, V]
  float *dr, *dz;       // [n, V] gradients of beta_i z_i and of z_i
  float *dq, *dk, *dn;  // [n, K] gradients of qd, kd, kn
  float *da, *dm;       // [n, kChunk] gradients of q_i.k_j and of k_i.k_j
  float* weight;        // [n, kChunk] gradient of the log decay from token j to token i
  SENNIT_INLINE Backward(const DeltaTask& t, Scratch& pieces) {
    const int64_t K = t.key_dim, V = t.value_dim;
    const int64_t chunks = (t.length + kChunk - 1) / kChunk;
    for (float** p : {&a, &m}) *p = pieces.take(chunks * kChunk * kChunk);
    states = pieces.take(chunks * K * V);
    for (float** p : {&z, &u}) *p = pieces.take(t.length * V);
    for (float** p : {&ds, &rows}) *p = pieces.take(K * V);
    for (float** p : {&dy, &dr, &dz}) *p = pieces.take(kChunk * V);
    for (float** p : {&dq, &dk, &dn}) *p = pieces.take(kChunk * K);
    for (float** p : {&da, &dm, &weight}) *p = pieces.take(kChunk * kChunk);
  }
};

struct Gradients {
  float *dq, *dk, *dv, *dg, *dbeta;  // at the chunk's first token
};

// Every chunk's first state, a, m, z and u.
void replay(const DeltaTask& t, const float* s0, Chunk c, const Backward& b) {
  const int64_t K = t.key_dim, V = t.value_dim;
  copy(s0, b.rows, K * V);
  float* s = b.states;
  for (int64_t first = 0; first < t.length; first += kChunk, s += K * V) {
    const Tokens x(t, first);
    c.a = b.a + first * kChunk, c.m = b.m + first * kChunk;
    transpose(b.rows, V, K, V, s, K);
    prepare(t, x, c);
    solve(t, x, c, b.rows, b.z + first * V, b.u + first * V);
    advance_state(t, x.n, c, b.u + first * V, b.rows);
  }
}

// The products with the states: dr, dz, dq, dk, dn; adds dv.
void state_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s, const float* u,
                     float* dv) {
  const int64_t K = t.key_dim, V = t.value_dim;
  transpose(b.ds, K, V, K, b.rows, V);
  multiply({n, V, n}, {c.a, 1, kChunk}, {b.dy, V}, {.p = b.dr, .stride = V});
  multiply({n, V, K}, {c.kd, K, 1}, {b.rows, V}, {.p = b.dr, .stride = V, .start = b.dr});
  solve_back(c, b.dr, n, V);
  for (int64_t i = 0; i < n; ++i)
    for_lanes(V, [&](int64_t l, int64_t lanes) {
      const vf d = load_n(b.dr + i * V + l, lanes) * set(c.beta[i]);
      store_n(b.dz + i * V + l, d, lanes);
      add_n(dv + i * t.v_stride + l, d, lanes);
    });
  multiply({n, K, V}, {b.dy, V, 1}, {s, K}, {.p = b.dq, .stride = K});
  multiply({n, K, V}, {b.dz, V, 1}, {s, K}, {.p = b.dn, .stride = K});
  multiply({n, K, V}, {u, V, 1}, {b.ds, K}, {.p = b.dk, .stride = K});
}

// Gradients by the pairs of tokens of a chunk: da, dm (j < i) and the weights of their decays; adds dbeta.
void pair_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* z, const float* u,
                    float* dbeta) {
  const int64_t V = t.value_dim;
  lower_products({b.dy, V}, {u, V}, V, n, b.da);
  lower_products({b.dr, V}, {u, V}, V, n, b.dm);
  clear_diagonal(b.dm);
  for (int64_t i = 0; i < n; ++i) {
    const vf beta = set(c.beta[i]);
    vf db = zero();
    for_lanes(kChunk, [&](int64_t j, int64_t lanes) {
      const int64_t at = i * kChunk + j;
      const vf pair = load_n(c.pair + at, lanes), m = load_n(c.m + at, lanes), da = load_n(b.da + at, lanes);
      const vf dl = -load_n(b.dm + at, lanes);  // of l_ij = beta_i m_ij
      db = fma(dl, m, db);
      store_n(b.weight + at, fma(da, load_n(c.a + at, lanes), dl * beta * m), lanes);
      store_n(b.da + at, da * pair * set(t.scale), lanes);
      store_n(b.dm + at, dl * beta * pair, lanes);
    });
    dbeta[i * t.beta_stride] += dot(b.dr + i * V, z + i * V, V) + sum(db);
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) b.dm[j * kChunk + i] = b.dm[i * kChunk + j];  // k_i.k_j is symmetric
}

// dg_t gathers every path that crosses from before token t to it: within the chunk, from the state to token i (later),
// from token j to the state at the end (earlier), and from state to state. All are sums: nothing cancels.
void decay_gradients(const DeltaTask& t, int64_t n, const Chunk& c, const Backward& b, const float* s, float* dg) {
  const int64_t K = t.key_dim;
  add_crossing(b.weight, n, dg, t.g_stride);
  float later = c.total[0] * dot(s, b.ds, K * t.value_dim), earlier = 0;
  for (int64_t i = n - 1; i >= 0; --i) {
    later += dot(c.qd + i * K, b.dq + i * K, K) + dot(c.kn + i * K, b.dn + i * K, K);
    dg[i * t.g_stride] += later;
  }
  for (int64_t j = 0; j < n; ++j) {
    dg[j * t.g_stride] += earlier;
    earlier += dot(c.kd + j * K, b.dk + j * K, K);
  }
}

// From the gradients of qd, kd, kn and of the pairs to those of q and k, which are left in b.dq and b.dk.
void key_gradients(const DeltaTask& t, const Tokens& x, const Chunk& c, const Backward& b) {
  const int64_t K = t.key_dim, n = x.n;
  for (int64_t i = 0; i < n; ++i)
    for_lanes(K, [&](int64_t l, int64_t lanes) {
      const int64_t at = i * K + l;
      const vf dk = set(c.after[i]) * load_n(b.dk + at, lanes);
      store_n(b.dq + at, set(t.scale * c.before[i]) * load_n(b.dq + at, lanes), lanes);
      store_n(b.dk + at, fnma(set(c.before[i]), load_n(b.dn + at, lanes), dk), lanes);
    });
  multiply({n, K, n}, {b.da, kChunk, 1}, x.k, {.p = b.dq, .stride = K, .start = b.dq});
  multiply({n, K, n}, {b.da, 1, kChunk}, x.q, {.p = b.dk, .stride = K, .start = b.dk});
  multiply({n, K, n}, {b.dm, kChunk, 1}, x.k, {.p = b.dk, .stride = K, .start = b.dk});
}

void backward_chunk(const DeltaTask& t, const Tokens& x, Rows dy, Chunk c, const Backward& b, const float* s,
                    const Gradients& to) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n;
  const float *z = b.z + x.first * V, *u = b.u + x.first * V;
  c.a = b.a + x.first * kChunk, c.m = b.m + x.first * kChunk;
  gather(dy, n, V, b.dy);
  load_decays(t, x, c);
  decayed_rows(t, x, c);
  state_gradients(t, n, c, b, s, u, to.dv);
  pair_gradients(t, n, c, b, z, u, to.dbeta);
  if (t.g) decay_gradients(t, n, c, b, s, to.dg);
  key_gradients(t, x, c, b);
  add_rows(b.dq, n, K, to.dq, t.q_stride);
  add_rows(b.dk, n, K, to.dk, t.k_stride);
  multiply({V, K, n}, {b.dy, 1, V}, {c.qd, K}, {.p = b.ds, .stride = K, .start = b.ds, .column_scale = c.total});
  multiply({V, K, n}, {b.dz, 1, V}, {c.kn, K}, {.p = b.ds, .stride = K, .start = b.ds});
}

void backward(const DeltaTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end, float* dq,
              float* dk, float* dv, float* dg, float* dbeta, float* ds0, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  const Chunk c(t, pieces);
  const Backward b(t, pieces);
  if (ds_end)
    transpose(ds_end, V, K, V, b.ds, K);
  else
    copy(nullptr, b.ds, K * V);
  replay(t, s0, c, b);
  for (int64_t chunk = (t.length + kChunk - 1) / kChunk - 1; chunk >= 0; --chunk) {
    const int64_t first = chunk * kChunk;
    backward_chunk(t, Tokens(t, first), {dy + first * dy_stride, dy_stride}, c, b, b.states + chunk * K * V,
                   {dq + first * t.q_stride, dk + first * t.k_stride, dv + first * t.v_stride,
                    t.g ? dg + first * t.g_stride : nullptr, dbeta + first * t.beta_stride});
  }
  if (!ds0) return;
  transpose(b.ds, K, V, K, b.rows, V);
  for_lanes(K * V, [&](int64_t i, int64_t l) { add_n(ds0 + i, load_n(b.rows + i, l), l); });
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
