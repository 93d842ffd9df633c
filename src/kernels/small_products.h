#pragma once
// Products and transposes of small row-major matrices that fit the first caches, for chunked recurrences. Every element
// is summed in the order of the inner index, however the matrices are cut into tiles. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

struct Rows {
  const float* p;
  int64_t stride;
  SENNIT_INLINE const float* operator[](int64_t i) const { return p + i * stride; }
};

// c [m, n] = start + a b, where a is [m, inner] with any two strides (so also a transpose) and b [inner, n].
struct Size {
  int64_t m, n, inner;
};
struct Left {
  const float* p;
  int64_t row, col;
};
struct Result {
  float* p;
  int64_t stride;
  const float* start = nullptr;         // [m, n] with the stride of c; may be c; nullptr: zeros
  const float* row_scale = nullptr;     // [m]: start's rows are multiplied by it first
  const float* column_scale = nullptr;  // [n]: or its columns
};

namespace {

constexpr int kTileRows = 4;
constexpr int kTileColumns = kLanes == 8 ? 2 : 4;  // in vectors: what the level's registers hold

// Rows [i, i + R) and the J vectors from column l; the last one has `lanes` lanes (all, if J > 1).
template <int R, int J>
SENNIT_INLINE void product_tile(int64_t inner, const Left& a, const Rows& b, const Result& c, int64_t i, int64_t l,
                                int64_t lanes) {
  const int64_t stride = c.stride, at = i * stride + l;
  vf acc[R][J];
  auto for_all = [&](auto&& body) {
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < J; ++j) body(acc[r][j], r, j * kLanes);
  };
  for_all([](vf& s, int, int) { s = zero(); });
  if (const float* start = c.start)
    for_all([&](vf& s, int r, int j) { s = load_n(start + at + r * stride + j, lanes); });
  if (const float* scale = c.row_scale) for_all([&](vf& s, int r, int) { s = s * set(scale[i + r]); });
  if (const float* scale = c.column_scale) for_all([&](vf& s, int, int j) { s = s * load_n(scale + l + j, lanes); });
  const float *left = a.p + i * a.row, *right = b.p + l;
  for (int64_t k = 0; k < inner; ++k, left += a.col, right += b.stride) {
    vf row[J];
    for (int j = 0; j < J; ++j) row[j] = load_n(right + j * kLanes, lanes);
    for (int r = 0; r < R; ++r) {
      const vf factor = set(left[r * a.row]);
      for (int j = 0; j < J; ++j) acc[r][j] = fma(factor, row[j], acc[r][j]);
    }
  }
  float* to = c.p + at;
  for_all([&](vf s, int r, int j) { store_n(to + r * stride + j, s, lanes); });
}

template <int J>
SENNIT_INLINE void product_columns(const Size& size, const Left& a, const Rows& b, const Result& c, int64_t l,
                                   int64_t lanes) {
  int64_t i = 0;
  for (; i + kTileRows <= size.m; i += kTileRows) product_tile<kTileRows, J>(size.inner, a, b, c, i, l, lanes);
  for (; i < size.m; ++i) product_tile<1, J>(size.inner, a, b, c, i, l, lanes);
}

[[maybe_unused]] void multiply(const Size& size, const Left& a, const Rows& b, const Result& c) {
  int64_t l = 0;
  for (; l + kTileColumns * kLanes <= size.n; l += kTileColumns * kLanes)
    product_columns<kTileColumns>(size, a, b, c, l, kLanes);
  for (; l + kLanes <= size.n; l += kLanes) product_columns<1>(size, a, b, c, l, kLanes);
  if (l < size.n) product_columns<1>(size, a, b, c, l, size.n - l);
}

// c [m, n] += a b, where a [m, m] is lower triangular: what lies above the diagonal is not read, but within tiles.
[[maybe_unused]] void add_lower_multiply(int64_t m, int64_t n, const Left& a, const Rows& b, float* c, int64_t stride) {
  for (int64_t i = 0; i < m; i += kTileRows) {
    const int64_t rows = m - i < kTileRows ? m - i : kTileRows;
    float* to = c + i * stride;
    multiply({rows, n, i + rows}, {a.p + i * a.row, a.row, a.col}, b, {.p = to, .stride = stride, .start = to});
  }
}

#if defined(SENNIT_LEVEL_avx512)
SENNIT_INLINE void transpose_square(vf (&r)[16]) {
  __m512 t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  auto pd = [](__m512 x) { return _mm512_castps_pd(x); };
  auto ps = [](__m512d x) { return _mm512_castpd_ps(x); };
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = ps(_mm512_unpacklo_pd(pd(t[i + j]), pd(t[i + j + 2])));
      u[i + 2 * j + 1] = ps(_mm512_unpackhi_pd(pd(t[i + j]), pd(t[i + j + 2])));
    }
  // Now quarter l of u[4g + c] holds column 4l + c of rows 4g to 4g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(u[c], u[4 + c], 0x44), b = _mm512_shuffle_f32x4(u[c], u[4 + c], 0xee);
    const __m512 d = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0x44),
                 e = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0xee);
    r[c].v = _mm512_shuffle_f32x4(a, d, 0x88);
    r[4 + c].v = _mm512_shuffle_f32x4(a, d, 0xdd);
    r[8 + c].v = _mm512_shuffle_f32x4(b, e, 0x88);
    r[12 + c].v = _mm512_shuffle_f32x4(b, e, 0xdd);
  }
}
#elif defined(SENNIT_LEVEL_avx2)
SENNIT_INLINE void transpose_square(vf (&r)[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  auto pd = [](__m256 x) { return _mm256_castps_pd(x); };
  auto ps = [](__m256d x) { return _mm256_castpd_ps(x); };
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = ps(_mm256_unpacklo_pd(pd(t[i + j]), pd(t[i + j + 2])));
      u[i + 2 * j + 1] = ps(_mm256_unpackhi_pd(pd(t[i + j]), pd(t[i + j + 2])));
    }
  for (int c = 0; c < 4; ++c) {
    r[c].v = _mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
    r[4 + c].v = _mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
  }
}
#else
SENNIT_INLINE void transpose_square(vf (&)[1]) {}
#endif

// b [columns, rows] = the transpose of a [rows, columns]
[[maybe_unused]] void transpose(const float* a, int64_t a_stride, int64_t rows, int64_t columns, float* b,
                                int64_t b_stride) {
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const int64_t m = rows - i < kLanes ? rows - i : kLanes, n = columns - j < kLanes ? columns - j : kLanes;
      vf square[kLanes];
      for (int64_t r = 0; r < kLanes; ++r) square[r] = r < m ? load_n(a + (i + r) * a_stride + j, n) : zero();
      transpose_square(square);
      for (int64_t r = 0; r < n; ++r) store_n(b + (j + r) * b_stride + i, square[r], m);
    }
}

[[maybe_unused]] void copy(const float* from, float* to, int64_t n) {
  if (from == to) return;
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(to + i, from ? load_n(from + i, k) : zero(), k); });
}

}  // namespace

// Cuts scratch memory into pieces that start on cache lines; with nullptr it only counts them.
class Scratch {
 public:
  explicit SENNIT_INLINE Scratch(float* memory) : memory_(memory) {
    if (memory) used_ = static_cast<int64_t>(-(reinterpret_cast<uintptr_t>(memory) / sizeof(float)) % 16);
  }
  SENNIT_INLINE float* take(int64_t floats) {
    float* piece = memory_ ? memory_ + used_ : nullptr;
    used_ += (floats + 15) / 16 * 16;
    return piece;
  }
  SENNIT_INLINE int64_t needed() const { return used_ + 16; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

}  // namespace sennit::kernels::SENNIT_LEVEL
