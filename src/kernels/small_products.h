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

// What of a square left matrix may be other than zero. Tiles skip the rest, but read the zeros beside the diagonal.
enum class Part { all, lower, upper };

// c [m, n] = start + a b, where a is [m, inner] with any two strides (so also a transpose) and b [inner, n].
struct Size {
  int64_t m, n, inner;
};
struct Left {
  const float* p;
  int64_t row, col;
  Part part = Part::all;
};
struct Product {
  Left a;
  Rows b;
  int64_t inner;
  const float* row_scale = nullptr;  // [m]: rows of what it is added to are multiplied by it first
};

// Rows that are wanted soon, asked for a little at a time between tiles of products. The rows of one head lie so far
// apart that the processor does not foresee them, and all at once they would be waited for.
class Ahead {
 public:
  // n rows of dim floats
  SENNIT_INLINE void add(Rows rows, int64_t n, int64_t dim) {
    if (n > 0) parts_[count_++] = {rows, n, dim};
  }
  SENNIT_INLINE void add(const Ahead& other) {
    for (int64_t i = other.part_; i < other.count_; ++i) parts_[count_++] = other.parts_[i];
  }
  // After so many multiplications and additions.
  SENNIT_INLINE void next(int64_t operations) {
    for (due_ += operations; due_ >= kOperations && part_ < count_; due_ -= kOperations) {
      const Piece& piece = parts_[part_];
      const float* p = piece.rows[row_] + at_;
      for (int64_t line = 0; line < kLines; ++line) __builtin_prefetch(p + line * kLine, 0, 2);
      if ((at_ += kLines * kLine) < piece.dim) continue;
      at_ = 0;
      if (++row_ < piece.n) continue;
      row_ = 0, ++part_;
    }
  }

 private:
  static constexpr int64_t kLine = 16;          // floats
  static constexpr int64_t kLines = 4;          // at a time, past the end of a row that is no multiple
  static constexpr int64_t kOperations = 1600;  // between them: all has been asked for when a chunk's products are done
  struct Piece {
    Rows rows;
    int64_t n, dim;
  };
  Piece parts_[14];
  int64_t count_ = 0, part_ = 0, row_ = 0, at_ = 0, due_ = 0;
};

struct Result {
  float* p;
  int64_t stride;
  const float* start = nullptr;         // [m, n] with the stride of c; may be c; nullptr: zeros
  const float* row_scale = nullptr;     // [m]: start's rows are multiplied by it first
  const float* column_scale = nullptr;  // [n]: or its columns
  Ahead* ahead = nullptr;
};

namespace {

// What the level's registers hold beside a row of b and a factor.
constexpr int kTileRows = 6;
constexpr int kTileColumns = kLanes == 8 ? 2 : 4;  // in vectors

template <int R, int J, class Body>
SENNIT_INLINE void for_tile(Body&& body) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int j = 0; j < J; ++j) body(r, j);
}

template <int R, int J>
SENNIT_INLINE void start_tile(const Result& c, int64_t i, int64_t l, int64_t lanes, vf (&acc)[R][J]) {
  const float *rows = c.row_scale, *columns = c.column_scale;
  for_tile<R, J>([&](int r, int j) { acc[r][j] = zero(); });
  if (const float* start = c.start) {
    start += i * c.stride + l;
    for_tile<R, J>([&](int r, int j) { acc[r][j] = load_n(start + r * c.stride + j * kLanes, lanes); });
  }
  if (rows) for_tile<R, J>([&](int r, int j) { acc[r][j] = acc[r][j] * set(rows[i + r]); });
  if (columns) for_tile<R, J>([&](int r, int j) { acc[r][j] = acc[r][j] * load_n(columns + l + j * kLanes, lanes); });
}

// Rows [i, i + R) and the J vectors from column l; the last one has `lanes` lanes (all, if J > 1).
template <int R, int J, int N>
SENNIT_INLINE void product_tile(const Product (&products)[N], const Result& c, int64_t i, int64_t l, int64_t lanes) {
  vf acc[R][J];
  start_tile(c, i, l, lanes, acc);
  for (const Product& x : products) {
    if (const float* scale = x.row_scale)
      for_tile<R, J>([&](int r, int j) { acc[r][j] = acc[r][j] * set(scale[i + r]); });
    const int64_t first = x.a.part == Part::upper ? i : 0;
    const int64_t end = x.a.part == Part::lower && i + R < x.inner ? i + R : x.inner;
    if (c.ahead) c.ahead->next((end - first) * R * J * kLanes);
    const float *left = x.a.p + i * x.a.row + first * x.a.col, *right = x.b[first] + l;
    for (int64_t k = first; k < end; ++k, left += x.a.col, right += x.b.stride) {
      vf row[J];
      for (int j = 0; j < J; ++j) row[j] = load_n(right + j * kLanes, lanes);
      for (int r = 0; r < R; ++r) {
        const vf factor = set(left[r * x.a.row]);
        for (int j = 0; j < J; ++j) acc[r][j] = fma(factor, row[j], acc[r][j]);
      }
    }
  }
  float* to = c.p + i * c.stride + l;
  const int64_t stride = c.stride;
  for_tile<R, J>([&](int r, int j) { store_n(to + r * stride + j * kLanes, acc[r][j], lanes); });
}

template <int J, int N>
SENNIT_INLINE void product_columns(int64_t m, const Product (&products)[N], const Result& c, int64_t l, int64_t lanes) {
  int64_t i = 0;
  for (; i + kTileRows <= m && m - i != 8; i += kTileRows)  // 8 rows are twice 4
    product_tile<kTileRows, J>(products, c, i, l, lanes);
  for (; i + 4 <= m; i += 4) product_tile<4, J>(products, c, i, l, lanes);
  for (; i < m; ++i) product_tile<1, J>(products, c, i, l, lanes);
}

// c [m, n] = start + the sum of the products, in their order.
template <int N>
[[maybe_unused]] void multiply(int64_t m, int64_t n, const Product (&products)[N], const Result& c) {
  int64_t l = 0;
  for (; l + kTileColumns * kLanes <= n; l += kTileColumns * kLanes)
    product_columns<kTileColumns>(m, products, c, l, kLanes);
  for (; l + 2 * kLanes <= n; l += 2 * kLanes) product_columns<2>(m, products, c, l, kLanes);
  for (; l + kLanes <= n; l += kLanes) product_columns<1>(m, products, c, l, kLanes);
  if (l < n) product_columns<1>(m, products, c, l, n - l);
}

[[maybe_unused]] void multiply(const Size& size, const Left& a, const Rows& b, const Result& c) {
  const Product product[] = {{a, b, size.inner}};
  multiply(size.m, size.n, product, c);
}

#if defined(SENNIT_LEVEL_avx512)
// to[j] += the sum of s[j]
SENNIT_INLINE void add_sums(const vf (&s)[4], float* to) {
  __m512 t[2];
  for (int i = 0; i < 2; ++i)
    t[i] =
        _mm512_add_ps(_mm512_unpacklo_ps(s[2 * i].v, s[2 * i + 1].v), _mm512_unpackhi_ps(s[2 * i].v, s[2 * i + 1].v));
  const __m512d a = _mm512_castps_pd(t[0]), b = _mm512_castps_pd(t[1]);
  const __m512 u =
      _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(u), _mm512_extractf32x8_ps(u, 1));
  _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1))));
}
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
SENNIT_INLINE void add_sums(const vf (&s)[4], float* to) {
  __m256 t[2];
  for (int i = 0; i < 2; ++i)
    t[i] =
        _mm256_add_ps(_mm256_unpacklo_ps(s[2 * i].v, s[2 * i + 1].v), _mm256_unpackhi_ps(s[2 * i].v, s[2 * i + 1].v));
  const __m256d a = _mm256_castps_pd(t[0]), b = _mm256_castps_pd(t[1]);
  const __m256 u =
      _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_add_ps(_mm256_castps256_ps128(u), _mm256_extractf128_ps(u, 1))));
}
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
SENNIT_INLINE void add_sums(const vf (&s)[4], float* to) {
  for (int j = 0; j < 4; ++j) to[j] += s[j].v;
}
SENNIT_INLINE void transpose_square(vf (&)[1]) {}
#endif

// b [columns, rows] = the transpose of a [rows, columns]
[[maybe_unused]] void transpose(const float* a, int64_t a_stride, int64_t rows, int64_t columns, float* b,
                                int64_t b_stride) {
  for (int64_t i = 0; i < rows; i += kLanes)
    for (int64_t j = 0; j < columns; j += kLanes) {
      const int64_t m = rows - i < kLanes ? rows - i : kLanes, n = columns - j < kLanes ? columns - j : kLanes;
      const float* from = a + i * a_stride + j;
      float* to = b + j * b_stride + i;
      vf square[kLanes];
      if (m == kLanes && n == kLanes) {
        for (int64_t r = 0; r < kLanes; ++r) square[r] = load(from + r * a_stride);
        transpose_square(square);
        for (int64_t r = 0; r < kLanes; ++r) store(to + r * b_stride, square[r]);
        continue;
      }
      for (int64_t r = 0; r < kLanes; ++r) square[r] = r < m ? load_n(from + r * a_stride, n) : zero();
      transpose_square(square);
      for (int64_t r = 0; r < n; ++r) store_n(to + r * b_stride, square[r], m);
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
