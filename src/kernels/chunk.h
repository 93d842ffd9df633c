#pragma once
// What the chunked recurrences share. A chunk is one level of products, the state carries what came before it. Within a
// chunk, decays are products of factors exp(g) <= 1 taken from one token to the next: they can only underflow, to the 0
// that they stand for. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/small_products.h"

namespace sennit::kernels::SENNIT_LEVEL {

constexpr int64_t kChunk = 16;  // tokens

namespace {

// to [n, dim] = x's rows. Rows of one head in [T, heads, dim] often lie a power of two apart and share few sets of the
// cache, so that what many products read is gathered first.
[[maybe_unused]] void gather(Rows x, int64_t n, int64_t dim, float* to) {
  for (int64_t i = 0; i < n; ++i) copy(x[i], to + i * dim, dim);
}

// to's rows += from [n, dim]
[[maybe_unused]] void add_rows(const float* from, int64_t n, int64_t dim, float* to, int64_t stride) {
  for (int64_t i = 0; i < n; ++i)
    for_lanes(dim, [&](int64_t l, int64_t k) { add_n(to + i * stride + l, load_n(from + i * dim + l, k), k); });
}

template <int P, class Advance>
SENNIT_INLINE void add_lower_products(Rows x, Rows y, int64_t n, float* a, int64_t l, int64_t lanes,
                                      const Advance& advance, int64_t back) {
  for (int64_t j = 0; j < n; ++j) {
    vf right[P];
    for (int p = 0; p < P; ++p) right[p] = load_n(y[j] + l + p * kLanes, lanes);
    for (int64_t i = j + back; i < n; ++i) {
      vf s = zero();
      for (int p = 0; p < P; ++p) {
        const int64_t at = l + p * kLanes;
        if (i > j + back) right[p] = advance(right[p], i - back, at, lanes);
        s = fma(load_n(x[i] + at, lanes), right[p], s);
      }
      a[i * kChunk + j] += sum(s);
    }
  }
}

// a [n, kChunk] = the inner products of x_i and y_j [n, dim] for j <= i - back, 0 elsewhere. advance(r, i, l, lanes)
// takes the lanes of y_j from column l from token i - 1 to token i; token i meets it as it is at token i - back.
template <class Advance>
SENNIT_INLINE void lower_products(Rows x, Rows y, int64_t dim, int64_t n, float* a, const Advance& advance,
                                  int64_t back = 0) {
  copy(nullptr, a, kChunk * kChunk);
  int64_t l = 0;
  for (; l + 4 * kLanes <= dim; l += 4 * kLanes) add_lower_products<4>(x, y, n, a, l, kLanes, advance, back);
  for (; l + kLanes <= dim; l += kLanes) add_lower_products<1>(x, y, n, a, l, kLanes, advance, back);
  if (l < dim) add_lower_products<1>(x, y, n, a, l, dim - l, advance, back);
}

[[maybe_unused]] void lower_products(Rows x, Rows y, int64_t dim, int64_t n, float* a, int64_t back = 0) {
  lower_products(
      x, y, dim, n, a, [](vf right, int64_t, int64_t, int64_t) { return right; }, back);
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
[[maybe_unused]] void add_crossing(const float* weight, int64_t n, float* dg, int64_t stride) {
  float to[kChunk] = {};
  for (int64_t j = 0; j + 1 < n; ++j) {
    float crossing = 0;
    for (int64_t i = j + 1; i < n; ++i) {
      to[i] += weight[i * kChunk + j];
      crossing += to[i];
    }
    dg[(j + 1) * stride] += crossing;
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
