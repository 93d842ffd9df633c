#pragma once
// What the chunked recurrences share. A chunk is one level of products, the state carries what came before it. Within a
// chunk, decays are products of factors exp(g) <= 1 taken from one token to the next: they can only underflow, to the 0
// that they stand for. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/small_products.h"

namespace sennit::kernels::SENNIT_LEVEL {

constexpr int64_t kChunk = 16;  // tokens

// As many vectors as go together.
template <int J>
struct Vectors {
  static constexpr int count = J;
};

// Calls body(Vectors<J>, l, lanes) for runs of columns that cover [0, n), J <= Most vectors from column l; the last
// vector has `lanes` lanes (all, if J > 1).
template <int Most = 8, class Body>
SENNIT_INLINE void for_columns(int64_t n, Body&& body) {
  int64_t l = 0;
  if constexpr (Most == 8)
    for (; l + 8 * kLanes <= n; l += 8 * kLanes) body(Vectors<8>{}, l, int64_t{kLanes});
  for (; l + 4 * kLanes <= n; l += 4 * kLanes) body(Vectors<4>{}, l, int64_t{kLanes});
  for (; l + kLanes <= n; l += kLanes) body(Vectors<1>{}, l, int64_t{kLanes});
  if (l < n) body(Vectors<1>{}, l, n - l);
}

// Asks for n floats that will be wanted soon, into the second cache.
SENNIT_INLINE void fetch_row(const float* row, int64_t n) {
  constexpr int64_t kLine = 16;  // floats
  for (int64_t l = 0; l < n; l += kLine) __builtin_prefetch(row + l, 0, 2);
}

namespace {

// to [n, dim] = x's rows. Rows of one head in [T, heads, dim] often lie a power of two apart and share few sets of the
// cache, so that what many products read is gathered first.
[[maybe_unused]] void gather(Rows x, int64_t n, int64_t dim, float* to) {
  constexpr int64_t kLine = 16;  // floats
  int64_t l = 0;
  for (; l + kLine <= dim; l += kLine)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t p = 0; p < kLine; p += kLanes) store(to + i * dim + l + p, load(x[i] + l + p));
  for (int64_t i = 0; i < n; ++i) copy(x[i] + l, to + i * dim + l, dim - l);
}

// x's rows [n, dim] times a factor each
[[maybe_unused]] void scaled_rows(Rows x, const float* factor, int64_t n, int64_t dim, float* to) {
  for (int64_t i = 0; i < n; ++i)
    for_lanes(dim, [&](int64_t l, int64_t k) { store_n(to + i * dim + l, load_n(x[i] + l, k) * set(factor[i]), k); });
}

// Adds from's rows [n, dim] to a sum's, `stride` apart.
[[maybe_unused]] void add_rows(Rows from, int64_t n, int64_t dim, Sum to, int64_t stride) {
  float* row = to.at;
  for (int64_t i = 0; i < n; ++i, row += stride) {
    const float* x = from[i];
    if (to.holds)
      for_lanes(dim, [&](int64_t l, int64_t k) { add_n(row + l, load_n(x + l, k), k); });
    else
      copy(x, row, dim);
  }
}

// A chunk of n tokens of a task, at most `chunk`, from token `first`.
struct Tokens {
  int64_t first, n;
  template <class Task>
  SENNIT_INLINE Tokens(const Task& t, int64_t begin, int64_t chunk = kChunk)
      : first(begin), n(t.length - begin < chunk ? t.length - begin : chunk) {}
};
template <class Task>
SENNIT_INLINE bool is_token(const Task& t, int64_t i) {
  return i >= 0 && i < t.length;
}

// The queries, keys and values of the chunk from token `first`, if there is one.
template <class Task>
SENNIT_INLINE Ahead tokens_ahead(const Task& t, int64_t first) {
  Ahead ahead;
  if (!is_token(t, first)) return ahead;
  const int64_t n = Tokens(t, first).n;
  ahead.add({t.q + first * t.q_stride, t.q_stride}, n, t.key_dim);
  ahead.add({t.k + first * t.k_stride, t.k_stride}, n, t.key_dim);
  ahead.add({t.v + first * t.v_stride, t.v_stride}, n, t.value_dim);
  return ahead;
}

// From one row of a state to the next while it is worked on: a power of two would put a column of tiles into few sets
// of the cache.
SENNIT_INLINE int64_t state_stride(int64_t dim) {
  return dim % 32 == 0 ? dim + 16 : dim;
}

// A state [rows, dim]; from == nullptr stands for zeros.
[[maybe_unused]] void copy_state(const float* from, int64_t from_stride, int64_t rows, int64_t dim, float* to,
                                 int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) copy(from ? from + i * from_stride : nullptr, to + i * to_stride, dim);
}

// [dim, rows]: the transpose of a state [rows, dim], contiguous; from == nullptr stands for zeros.
[[maybe_unused]] void transpose_state(const float* from, int64_t rows, int64_t dim, float* to, int64_t to_stride) {
  if (from)
    transpose(from, dim, rows, dim, to, to_stride);
  else
    copy_state(nullptr, 0, dim, rows, to, to_stride);
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

// The sum of a b over states [rows, dim].
[[maybe_unused]] float state_dot(const float* a, const float* b, int64_t stride, int64_t rows, int64_t dim) {
  vf s = zero();
  for_lanes(dim, [&](int64_t l, int64_t lanes) { s = s + column_dots(a + l, b + l, stride, rows, lanes); });
  return sum(s);
}

// Rows [i, i + R) by rows [j, j + 4) of a [n, kChunk], see lower_products; rows past the last one are the last one
// again.
template <int R>
SENNIT_INLINE void pair_tile(Rows x, Rows y, int64_t dim, int64_t n, int64_t i, int64_t j, float* a) {
  const auto row = [&](Rows rows, int64_t at) { return rows[at < n ? at : n - 1]; };
  const float *left[R], *right[4] = {row(y, j), row(y, j + 1), row(y, j + 2), row(y, j + 3)};
  vf s[R][4];
  for (int r = 0; r < R; ++r) {
    left[r] = row(x, i + r);
    for (vf& sum : s[r]) sum = zero();
  }
  for_lanes(dim, [&](int64_t l, int64_t lanes) {
    vf key[4];
    for (int c = 0; c < 4; ++c) key[c] = load_n(right[c] + l, lanes);
    for (int r = 0; r < R; ++r) {
      const vf query = load_n(left[r] + l, lanes);
      for (int c = 0; c < 4; ++c) s[r][c] = fma(query, key[c], s[r][c]);
    }
  });
  for (int r = 0; r < R; ++r) add_sums(s[r], a + (i + r) * kChunk + j);
}

// a [kChunk, kChunk] = the inner products of x_i and y_j [n, dim] for j <= i - back, 0 elsewhere.
[[maybe_unused]] void lower_products(Rows x, Rows y, int64_t dim, int64_t n, float* a, int64_t back = 0) {
  constexpr int kPairRows = kLanes == 8 ? 2 : 4;
  copy(nullptr, a, kChunk * kChunk);
  for (int64_t i = 0; i < n; i += kPairRows)
    for (int64_t j = 0; j < i + kPairRows - back; j += 4) pair_tile<kPairRows>(x, y, dim, n, i, j, a);
  for (int64_t i = 0; i < kChunk; ++i) {
    const int64_t kept = i < n ? i + 1 - back : 0;
    copy(nullptr, a + i * kChunk + kept, kChunk - kept);
  }
}

// pair [n, kChunk] = alpha_{j+1} ... alpha_i for j <= i, else 0
[[maybe_unused]] void pair_decays(const float* alpha, int64_t n, float* pair) {
  copy(nullptr, pair, kChunk * kChunk);
  for (int64_t j = 0; j < n; ++j) {
    float product = pair[j * kChunk + j] = 1;
    for (int64_t i = j + 1; i < n; ++i) pair[i * kChunk + j] = product *= alpha[i];
  }
}

// In four interleaved partial sums, since a single one would wait for every addition.
[[maybe_unused]] float dot(const float* a, const float* b, int64_t n) {
  vf s[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j) s[j] = fma(load(a + i + j * kLanes), load(b + i + j * kLanes), s[j]);
  for_lanes(n - i, [&](int64_t l, int64_t k) { s[0] = fma(load_n(a + i + l, k), load_n(b + i + l, k), s[0]); });
  return sum((s[0] + s[1]) + (s[2] + s[3]));
}

// dg_t += the sum of weight [n, kChunk] over the pairs j < t <= i, for tokens 1 to n - 1: the gradient of log decays by
// which token i sees token j. No difference of sums is taken, so that small weights keep their precision.
[[maybe_unused]] void add_crossing(const float* weight, int64_t n, float* dg) {
  float to[kChunk] = {};
  for (int64_t j = 0; j + 1 < n; ++j) {
    float crossing = 0;
    for (int64_t i = j + 1; i < n; ++i) {
      to[i] += weight[i * kChunk + j];
      crossing += to[i];
    }
    dg[j + 1] += crossing;
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
