#include "kernels/dplr.h"

#include "kernels/dplr_chunk.h"
#include "kernels/tile.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kAskedAhead = 6;  // tokens

// The rows of one token, and its decays [key_dim].
struct Token {
  const float *q, *k, *v, *a, *b;
  float *e, *z;
  const float* next;
  SENNIT_INLINE Token(const DplrTask& t, int64_t i, float* decays)
      : q(t.q + i * t.stride),
        k(t.k + i * t.stride),
        v(t.v + i * t.v_stride),
        a(t.a + i * t.stride),
        b(t.b + i * t.stride),
        e(decays),
        z(t.z ? t.z + i * t.v_stride : nullptr),
        next(i + 1 == t.length ? t.next : nullptr) {
    for_lanes(t.key_dim, [&](int64_t l, int64_t lanes) {
      store_n(e + l, exp_decay(load_n(t.g + i * t.stride + l, lanes)), lanes);
    });
  }
};

// J vectors of a^T S, from column l.
template <int J>
SENNIT_INLINE void read_old(const DplrTask& t, const Token& x, const float* s, int64_t l, int64_t lanes, vf (&z)[J]) {
  vf odd[J];
  for (int j = 0; j < J; ++j) z[j] = odd[j] = zero();
  int64_t i = 0;
  const int64_t stride = t.value_dim;
  for (s += l; i + 2 <= t.key_dim; i += 2, s += 2 * stride) {
    if (x.next) fetch_row(x.next + i / 2 * stride + l, J * kLanes);
    for (int j = 0; j < J; ++j) {
      z[j] = fma(set(x.a[i]), load_n(s + j * kLanes, lanes), z[j]);
      odd[j] = fma(set(x.a[i + 1]), load_n(s + stride + j * kLanes, lanes), odd[j]);
    }
  }
  for (int j = 0; j < J; ++j) {
    if (i < t.key_dim) z[j] = fma(set(x.a[i]), load_n(s + j * kLanes, lanes), z[j]);
    z[j] = z[j] + odd[j];
  }
}

// Stores may alias the task and the token: what the loop needs is copied.
template <int J>
SENNIT_INLINE void step_columns(const DplrTask& t, const Token x, const float* from, float* to, float* y, int64_t l,
                                int64_t lanes) {
  const int64_t key_dim = t.key_dim, stride = t.value_dim;
  vf z[J], value[J], out[J];
  read_old(t, x, from, l, lanes, z);
  for (int j = 0; j < J && x.z; ++j) store_n(x.z + l + j * kLanes, z[j], lanes);
  for (int j = 0; j < J; ++j) value[j] = load_n(x.v + l + j * kLanes, lanes), out[j] = zero();
  from += l, to += l;
  for (int64_t i = 0; i < key_dim; ++i, from += stride, to += stride) {
    const vf key = set(x.k[i]), query = set(x.q[i]), b = set(x.b[i]), decay = set(x.e[i]);
    if (x.next && i % 2 == 0) fetch_row(x.next + (key_dim + i) / 2 * stride + l, J * kLanes);
    for (int j = 0; j < J; ++j) {
      const vf s = fma(key, value[j], fma(b, z[j], decay * load_n(from + j * kLanes, lanes)));
      store_n(to + j * kLanes, s, lanes);
      out[j] = fma(query, s, out[j]);
    }
  }
  for (int j = 0; j < J; ++j) store_n(y + l + j * kLanes, out[j] * set(t.scale), lanes);
}

// S through token i, from `from` to `to`, which may be the same.
void step(const DplrTask& t, int64_t i, float* decays, const float* from, float* to, float* y) {
  const Token x(t, i, decays);
  int64_t l = 0;
  for (; l + 4 * kLanes <= t.value_dim; l += 4 * kLanes) step_columns<4>(t, x, from, to, y, l, kLanes);
  for (; l + kLanes <= t.value_dim; l += kLanes) step_columns<1>(t, x, from, to, y, l, kLanes);
  if (l < t.value_dim) step_columns<1>(t, x, from, to, y, l, t.value_dim - l);
}

// Where the state before token i is kept, if it is.
SENNIT_INLINE float* kept_at(const DplrTask& t, int64_t i) {
  return t.kept && i > 0 && i % DplrTask::kKept == 0 ? t.kept + (i / DplrTask::kKept - 1) * t.key_dim * t.value_dim
                                                     : nullptr;
}

// The rows of a token lie far from those of the one before: what the processor does not foresee is asked for.
SENNIT_INLINE void ask_for(const DplrTask& t, int64_t i, const float* y) {
  if (i >= t.length) return;
  for (const float* x : {t.a, t.b, t.g, t.k, t.q}) fetch_row(x + i * t.stride, t.key_dim);
  fetch_row(t.v + i * t.v_stride, t.value_dim);
  if (t.z) fetch_row(t.z + i * t.v_stride, t.value_dim);
  fetch_row(y, t.value_dim);
}

void forward(const DplrTask& t, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch) {
  const int64_t size = t.key_dim * t.value_dim;
  if (!s0 || t.length == 0) copy(s0, s_end, size);
  const float* from = s0 ? s0 : s_end;
  for (int64_t i = 0; i < t.length; ++i, from = s_end, y += y_stride) {
    if (float* kept = kept_at(t, i)) copy(from, kept, size);
    ask_for(t, i + kAskedAhead, y + kAskedAhead * y_stride);
    step(t, i, scratch, from, s_end, y);
  }
}

int64_t scratch_floats(const DplrTask& t) {
  return t.key_dim;
}

constexpr int64_t kReplayed = DplrTask::kKept / kChunkTokens;

// Buffers of the backward pass. The rows of a task lie far apart: those of a run of kReplayed chunks are read once.
struct Backward {
  Chunk* chunks;       // [kReplayed]
  float* states;       // [kReplayed, K, V] at the start of each chunk, rows state_stride(V) apart, as those of ds
  float* ds;           // [K, V] gradient of the state at the chunk's end
  float *d_o, *du;     // [2 n, V] gradients of o (those of z are of u too) and u
  float *d_o_t, *u_t;  // [V, 2 n] transposes of d_o and u
  float *dr, *dw;      // [2 n, K]; at first through the state, before the decay from the chunk's start and to its end
  float* dg;           // [n, K]
  float* dp;           // [2 n, kChunk]; where p is 0, of no account
  float* through;      // [K] sums of the states' product at the chunk's start and end
  float* turned;       // [K, 2 n]
  SENNIT_INLINE Backward(const DplrTask& t, Chunk* run, Scratch& pieces) : chunks(run) {
    const int64_t K = t.key_dim, V = t.value_dim;
    for (int64_t i = 0; i < kReplayed; ++i) chunks[i] = Chunk(t, pieces);
    states = pieces.take(kReplayed * K * state_stride(V));
    ds = pieces.take(K * state_stride(V));
    for (float** x : {&d_o, &du, &d_o_t, &u_t}) *x = pieces.take(kChunk * V);
    for (float** x : {&dr, &dw, &turned}) *x = pieces.take(kChunk * K);
    dg = pieces.take(kChunkTokens * K);
    dp = pieces.take(kChunk * kChunk);
    through = pieces.take(K);
  }
};

// The chunks of the n tokens from `first`, which begin with the state s0, and their states.
void replay(const DplrTask& t, int64_t first, int64_t n, const float* s0, const Backward& b) {
  const int64_t K = t.key_dim, V = t.value_dim, size = K * state_stride(V), end = first + n;
  float* s = b.states;
  copy_state(s0, V, K, V, s, state_stride(V));
  for (const Chunk* c = b.chunks; first < end; first += kChunkTokens, s += size, ++c) {
    const int64_t next = first + kChunkTokens;
    const Tokens x = chunk_at(t, first);
    Ahead ahead;
    if (next < end) ahead = chunk_ahead(t, next);
    load_keys(t, x, *c);
    load_written(t, x, *c);
    faded_products(t, *c, x.n);
    if (next < end) advance_state(t, x.n, *c, s, s + size, ahead);
  }
}

// The transposed system, J vectors from column l: dz_j += sum_{i>j} p_2i,2j dz_i, and so the rows of v; adds those.
template <int J>
SENNIT_INLINE void solve_back_columns(const Chunk& c, const Backward& b, int64_t n, int64_t V, Sum dv, int64_t v_stride,
                                      int64_t l, int64_t lanes) {
  for (int64_t i = n - 1; i >= 0; --i) {
    const int64_t row = 2 * i, later = row + 2;
    vf sums[2][J];
    for_tile<2, J>([&](int r, int j) { sums[r][j] = load_n(b.du + (row + r) * V + l + j * kLanes, lanes); });
    add_products(
        sums, n - 1 - i, [](vf p, vf d, vf sum) { return fma(p, d, sum); },
        [&](int64_t m, int r) { return set(c.p[(later + 2 * m) * kChunk + row + r]); },
        [&](int64_t m, int j) { return load_n(b.d_o + (later + 2 * m) * V + l + j * kLanes, lanes); });
    for (int j = 0; j < J; ++j) {
      store_n(b.d_o + row * V + l + j * kLanes, sums[0][j], lanes);
      add_lanes(dv, i * v_stride + l + j * kLanes, sums[1][j], lanes);
    }
  }
}

// d_o, and adds dv.
void solve_back(const DplrTask& t, const Tokens& x, Rows dy, const Chunk& c, const Backward& b, Sum dv, Ahead& ahead) {
  const int64_t K = t.key_dim, V = t.value_dim;
  gather_apart({dy[x.first], dy.stride}, x.n, V, b.d_o + V);
  const Product du[] = {{{c.wd, K, 1}, {b.ds, state_stride(V)}, K},
                        {{c.p + kChunk, 1, 2 * kChunk}, {b.d_o + V, 2 * V}, x.n}};
  multiply(2 * x.n, V, du, {.p = b.du, .stride = V, .ahead = &ahead});
  for_columns(V, [&](auto vectors, int64_t l, int64_t lanes) {
    solve_back_columns<decltype(vectors)::count>(c, b, x.n, V, dv, t.v_stride, l, lanes);
  });
}

// to [rows, K] = x [rows, V] times the transpose of a state. The turned product reads the state as it lies.
void times_state(const float* x, int64_t rows, const float* s, int64_t K, int64_t V, float* x_t, float* turned,
                 float* to, Ahead& ahead) {
  transpose(x, V, rows, V, x_t, rows);
  multiply({K, rows, V}, {s, state_stride(V), 1}, {x_t, rows}, {.p = turned, .stride = rows, .ahead = &ahead});
  transpose(turned, rows, K, rows, to, K);
}

// to [rows] = the sums of a b over each row of states [rows, dim], four rows at a time.
void row_dots(const float* a, const float* b, int64_t stride, int64_t rows, int64_t dim, float* to) {
  copy(nullptr, to, rows);
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    vf s[4] = {zero(), zero(), zero(), zero()};
    for_lanes(dim, [&](int64_t l, int64_t lanes) {
      for (int r = 0; r < 4; ++r)
        s[r] = fma(load_n(a + (i + r) * stride + l, lanes), load_n(b + (i + r) * stride + l, lanes), s[r]);
    });
    add_sums(s, to + i);
  }
  for (; i < rows; ++i) to[i] = dot(a + i * stride, b + i * stride, dim);
}

// dg_t gathers every path from a write (or the state) before token t to a read (or the state) behind its decay. Each
// path is a sum of its own, so that nothing cancels: after a violent gate the little that passes keeps its precision.

// Of the lanes of key channels from l: the paths through the state, from the chunk's start to its end, from its start
// to a read, from a write to its end.
SENNIT_INLINE void state_paths(const Chunk& c, const Backward& b, int64_t K, int64_t n, int64_t l, int64_t lanes,
                               vf (&dg)[kChunkTokens]) {
  const auto product = [&](const float* x, const float* y, int64_t row, vf sum) {
    return fma(load_n(x + row * K + l, lanes), load_n(y + row * K + l, lanes), sum);
  };
  vf later = load_n(c.total + l, lanes) * load_n(b.through + l, lanes), earlier = zero();
  for (int64_t i = n - 1; i >= 0; --i) {
    dg[i] = later = product(c.rd, b.dr, 2 * i + 1, later);
    later = product(c.rd, b.dr, 2 * i, later);
  }
  for (int64_t j = 0; j < n; ++j) {
    dg[j] = dg[j] + earlier;
    earlier = product(c.wd, b.dw, 2 * j + 1, product(c.wd, b.dw, 2 * j, earlier));
  }
}

// Those within the chunk: their dr and dw, and adds to dg.
SENNIT_INLINE void inner_paths(const Chunk& c, const float* dp, int64_t K, int64_t n, int64_t l, int64_t lanes,
                               vf (&dr)[kChunk], vf (&dw)[kChunk], vf (&dg)[kChunkTokens]) {
  for (int64_t i = 0; i < 2 * n; ++i) dr[i] = zero();
  for (int64_t j = 0; j < n; ++j) {
    const int64_t at_b = 2 * j, at_k = at_b + 1;
    vf b = load_n(c.w + at_b * K + l, lanes), k = load_n(c.w + at_k * K + l, lanes), fade = set(1);
    vf db = zero(), dk = zero(), crossing = zero();
    const auto read = [&](int64_t row, bool crosses) {
      const vf r = load_n(c.r + row * K + l, lanes), faded = r * fade;
      const vf of_b = set(dp[row * kChunk + at_b]), of_k = set(dp[row * kChunk + at_k]);
      dr[row] = fma(of_b, b, fma(of_k, k, dr[row]));
      db = fma(of_b, faded, db);
      dk = fma(of_k, faded, dk);
      if (crosses) crossing = fma(r, dr[row], crossing);  // from all writes of tokens up to j
    };
    read(2 * j + 1, false);
    for (int64_t i = j + 1; i < n; ++i) {
      read(2 * i, i > j + 1);
      const vf decay = load_n(c.e + i * K + l, lanes);
      fade = fade * decay, b = b * decay, k = k * decay;
      read(2 * i + 1, true);
    }
    dw[at_b] = db, dw[at_k] = dk;
    if (j + 1 < n) dg[j + 1] = dg[j + 1] + crossing;
  }
}

// dr (of q where it was of scale q) and dw, from those through the state, and dg.
SENNIT_INLINE void channel_gradients(const DplrTask& t, const Chunk& c, const Backward& b, int64_t n, int64_t l,
                                     int64_t lanes) {
  const int64_t K = t.key_dim;
  const vf scale = set(t.scale);
  vf dr[kChunk], dw[kChunk], dg[kChunkTokens], before = set(1), after = set(1);
  state_paths(c, b, K, n, l, lanes, dg);
  inner_paths(c, b.dp, K, n, l, lanes, dr, dw, dg);
  const auto add_inner = [&](float* d, int64_t row, vf fade, vf inner) {
    float* to = d + row * K + l;
    store_n(to, fma(fade, load_n(to, lanes), inner), lanes);
  };
  for (int64_t i = 0; i < n; ++i) {
    add_inner(b.dr, 2 * i, before, dr[2 * i]);
    before = before * load_n(c.e + i * K + l, lanes);
    add_inner(b.dr, 2 * i + 1, scale * before, scale * dr[2 * i + 1]);
    store_n(b.dg + i * K + l, dg[i], lanes);
  }
  for (int64_t j = n - 1; j >= 0; --j) {
    add_inner(b.dw, 2 * j, after, dw[2 * j]);
    add_inner(b.dw, 2 * j + 1, after, dw[2 * j + 1]);
    after = after * load_n(c.e + j * K + l, lanes);
  }
}

// Adds dq, dk, da, db and dg.
void key_gradients(const DplrTask& t, int64_t n, const Chunk& c, const Backward& b, const Dplr::Gradients& to) {
  const int64_t K = t.key_dim;
  for_lanes(K, [&](int64_t l, int64_t lanes) { channel_gradients(t, c, b, n, l, lanes); });
  add_rows({b.dr + K, 2 * K}, n, K, to.q, t.stride);
  add_rows({b.dr, 2 * K}, n, K, to.a, t.stride);
  add_rows({b.dw, 2 * K}, n, K, to.b, t.stride);
  add_rows({b.dw + K, 2 * K}, n, K, to.k, t.stride);
  add_rows({b.dg, K}, n, K, to.g, t.stride);
}

// The next chunk to be done is that before this one, but after the first of a run the first of the run before.
SENNIT_INLINE Ahead gradients_ahead(const DplrTask& t, const Tokens& x, Rows dy, const Dplr::Gradients& to) {
  Ahead ahead;
  for (const Sum& d : {to.q, to.a, to.g, to.b, to.k}) ahead.add({d.at, t.stride}, x.n, t.key_dim);
  if (x.first > 0) ahead.add({dy[x.first - kChunkTokens], dy.stride}, kChunkTokens, t.value_dim);
  if (x.first > 0) ahead.add({to.v.at - kChunkTokens * t.v_stride, t.v_stride}, kChunkTokens, t.value_dim);
  if (x.first % DplrTask::kKept == 0) ahead.add(chunk_ahead(t, x.first - DplrTask::kKept));
  return ahead;
}

// `to` is at the chunk's first token.
void backward_chunk(const DplrTask& t, const Tokens& x, Rows dy, const Chunk& c, const Backward& b, const float* s,
                    const Dplr::Gradients& to) {
  const int64_t K = t.key_dim, V = t.value_dim, rows = 2 * x.n;
  Ahead ahead = gradients_ahead(t, x, dy, to);
  solve_back(t, x, dy, c, b, to.v, ahead);
  lower_products({b.d_o, V}, {c.u, V}, V, rows, b.dp);
  times_state(b.d_o, rows, s, K, V, b.d_o_t, b.turned, b.dr, ahead);
  times_state(c.u, rows, b.ds, K, V, b.u_t, b.turned, b.dw, ahead);
  row_dots(s, b.ds, state_stride(V), K, V, b.through);
  key_gradients(t, x.n, c, b, to);
  multiply({K, V, rows}, {c.rd, 1, K}, {b.d_o, V},
           {.p = b.ds, .stride = state_stride(V), .start = b.ds, .row_scale = c.total, .ahead = &ahead});
}

void backward(const DplrTask& t, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
              const Dplr::Gradients& into, float* ds0, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim, stride = state_stride(V);
  Scratch pieces(scratch);
  Chunk chunks[kReplayed];
  const Backward b(t, chunks, pieces);
  copy_state(ds_end, V, K, V, b.ds, stride);
  for (int64_t run = (t.length + DplrTask::kKept - 1) / DplrTask::kKept - 1; run >= 0; --run) {
    const int64_t begin = run * DplrTask::kKept;
    const int64_t n = t.length - begin < DplrTask::kKept ? t.length - begin : DplrTask::kKept;
    replay(t, begin, n, run > 0 ? kept_at(t, begin) : s0, b);
    for (int64_t i = (n + kChunkTokens - 1) / kChunkTokens - 1; i >= 0; --i) {
      const int64_t first = begin + i * kChunkTokens, at = first * t.stride;
      backward_chunk(t, chunk_at(t, first), {dy, dy_stride}, chunks[i], b, b.states + i * K * stride,
                     {.q = into.q.from(at),
                      .k = into.k.from(at),
                      .v = into.v.from(first * t.v_stride),
                      .a = into.a.from(at),
                      .b = into.b.from(at),
                      .g = into.g.from(at)});
    }
  }
  if (ds0) add_rows({b.ds, stride}, K, V, {ds0}, V);
}

int64_t backward_scratch_floats(const DplrTask& t) {
  Scratch pieces(nullptr);
  Chunk chunks[kReplayed];
  Backward(t, chunks, pieces);
  return pieces.needed();
}

}  // namespace

const Dplr dplr_table = {.scratch_floats = scratch_floats,
                         .backward_scratch_floats = backward_scratch_floats,
                         .forward = forward,
                         .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
