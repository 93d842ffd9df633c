#include "kernels/quantized.h"

#include "kernels/gemm.h"
#include "kernels/halves.h"
#include "kernels/pairs.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kGroups = 8;        // of four columns in a block
constexpr int64_t kAhead = 2048;  // bytes that are asked for before they are read: few rows of x wait for memory alone

#if defined(SENNIT_LEVEL_avx512)

// Sixteen sums, one for each row of a panel, and as floats.
struct Sums {
  __m512i v;
};
struct Floats {
  __m512 v;
};
struct Codes {
  __m512i v;
};
SENNIT_INLINE Sums no_sums() {
  return {_mm512_setzero_si512()};
}
SENNIT_INLINE Floats no_floats() {
  return {_mm512_setzero_ps()};
}
SENNIT_INLINE Codes load_codes(const uint8_t* p) {
  return {_mm512_loadu_si512(p)};
}
SENNIT_INLINE Codes low_half(Codes c) {
  return {_mm512_and_si512(c.v, _mm512_set1_epi8(15))};
}
SENNIT_INLINE Codes high_half(Codes c) {
  return {_mm512_and_si512(_mm512_srli_epi16(c.v, 4), _mm512_set1_epi8(15))};
}
// Adds four products a row.
template <int kBits>
SENNIT_INLINE Sums add_group(Sums s, Codes c, const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  return {_mm512_dpbusd_epi32(s.v, c.v, _mm512_set1_epi32(four))};
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
SENNIT_INLINE Floats to_floats(Sums s) {
  return {_mm512_cvtepi32_ps(s.v)};
}
SENNIT_INLINE Floats times(Floats a, float b) {
  return {_mm512_mul_ps(a.v, _mm512_set1_ps(b))};
}
SENNIT_INLINE Floats add_product(Floats s, Floats a, Floats b) {
  return {_mm512_fmadd_ps(a.v, b.v, s.v)};
}
SENNIT_INLINE Floats subtract_product(Floats s, Floats a, float b) {
  return {_mm512_fnmadd_ps(a.v, _mm512_set1_ps(b), s.v)};
}
SENNIT_INLINE void put(Floats s, float* y) {
  _mm512_storeu_ps(y, s.v);
}
// The codes of one of four columns.
SENNIT_INLINE Floats column(Codes c, int j) {
  const __m512i code = _mm512_srl_epi32(c.v, _mm_cvtsi32_si128(8 * j));
  return {_mm512_cvtepi32_ps(_mm512_and_si512(code, _mm512_set1_epi32(255)))};
}
SENNIT_INLINE Floats decoded(Floats q, Floats scale, Floats minimum) {
  return {_mm512_sub_ps(_mm512_mul_ps(scale.v, q.v), minimum.v)};
}
SENNIT_INLINE void put_pairs(Floats even, Floats odd, float* units) {
  store(units, pair({even.v}, {odd.v}));
}
template <int kBits>
constexpr int kTile = 6;  // rows of x at a time

#elif defined(SENNIT_LEVEL_avx2)

// Of 8 bits: rows 0-7 and 8-15, in 32 bits. Of 4 bits: pairs of columns of the same rows, in 16 bits, where those of a
// whole block fit: 8 * 2 * 15 * 127 < 2^15.
struct Sums {
  __m256i v[2];
};
struct Floats {
  __m256 v[2];
};
struct Codes {
  __m256i v[2];
};
SENNIT_INLINE Sums no_sums() {
  const __m256i z = _mm256_setzero_si256();
  return {{z, z}};
}
SENNIT_INLINE Floats no_floats() {
  return {{_mm256_setzero_ps(), _mm256_setzero_ps()}};
}
SENNIT_INLINE Codes load_codes(const uint8_t* p) {
  return {{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))}};
}
SENNIT_INLINE Codes low_half(Codes c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {{_mm256_and_si256(c.v[0], mask), _mm256_and_si256(c.v[1], mask)}};
}
SENNIT_INLINE Codes high_half(Codes c) {
  return low_half({{_mm256_srli_epi16(c.v[0], 4), _mm256_srli_epi16(c.v[1], 4)}});
}
// Ends an addition here: g++ would else gather the products of a whole tile first, and registers are too few for that.
SENNIT_INLINE void settle(__m256i& sum) {
  asm volatile("" : "+x"(sum));
}
template <int kBits>
SENNIT_INLINE Sums add_group(Sums s, Codes c, const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  for (int h = 0; h < 2; ++h) {
    if constexpr (kBits == 4) {
      s.v[h] = _mm256_add_epi16(s.v[h], _mm256_maddubs_epi16(c.v[h], _mm256_set1_epi32(four)));
      settle(s.v[h]);
    } else {
      const __m256i columns = _mm256_set1_epi32(four), codes = c.v[h];
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(columns, 8), 8), odd = _mm256_srai_epi16(columns, 8);
      s.v[h] = _mm256_add_epi32(s.v[h], _mm256_madd_epi16(_mm256_and_si256(codes, _mm256_set1_epi16(255)), even));
      s.v[h] = _mm256_add_epi32(s.v[h], _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), odd));
    }
  }
  return s;
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  return {{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))}};
}
template <int kBits>
SENNIT_INLINE Floats floats_of(Sums s) {
  Floats f;
  for (int h = 0; h < 2; ++h)
    f.v[h] = _mm256_cvtepi32_ps(kBits == 4 ? _mm256_madd_epi16(s.v[h], _mm256_set1_epi16(1)) : s.v[h]);
  return f;
}
SENNIT_INLINE Floats times(Floats a, float b) {
  return {{_mm256_mul_ps(a.v[0], _mm256_set1_ps(b)), _mm256_mul_ps(a.v[1], _mm256_set1_ps(b))}};
}
SENNIT_INLINE Floats add_product(Floats s, Floats a, Floats b) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], s.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], s.v[1])}};
}
SENNIT_INLINE Floats subtract_product(Floats s, Floats a, float b) {
  return {{_mm256_fnmadd_ps(a.v[0], _mm256_set1_ps(b), s.v[0]), _mm256_fnmadd_ps(a.v[1], _mm256_set1_ps(b), s.v[1])}};
}
SENNIT_INLINE void put(Floats s, float* y) {
  _mm256_storeu_ps(y, s.v[0]);
  _mm256_storeu_ps(y + 8, s.v[1]);
}
SENNIT_INLINE Floats column(Codes c, int j) {
  Floats f;
  for (int h = 0; h < 2; ++h) {
    const __m256i code = _mm256_srl_epi32(c.v[h], _mm_cvtsi32_si128(8 * j));
    f.v[h] = _mm256_cvtepi32_ps(_mm256_and_si256(code, _mm256_set1_epi32(255)));
  }
  return f;
}
SENNIT_INLINE Floats decoded(Floats q, Floats scale, Floats minimum) {
  for (int h = 0; h < 2; ++h) q.v[h] = _mm256_sub_ps(_mm256_mul_ps(scale.v[h], q.v[h]), minimum.v[h]);
  return q;
}
SENNIT_INLINE void put_pairs(Floats even, Floats odd, float* units) {
  for (int h = 0; h < 2; ++h) store(units + 8 * h, pair({even.v[h]}, {odd.v[h]}));
}
template <int kBits>
constexpr int kTile = kBits == 4 ? 6 : 2;

#else

struct Sums {
  int32_t v[kQuantizedRows];
};
struct Floats {
  float v[kQuantizedRows];
};
struct Codes {
  uint8_t v[4 * kQuantizedRows];
};
SENNIT_INLINE Sums no_sums() {
  return {};
}
SENNIT_INLINE Floats no_floats() {
  return {};
}
SENNIT_INLINE Codes load_codes(const uint8_t* p) {
  Codes c;
  __builtin_memcpy(c.v, p, sizeof c.v);
  return c;
}
SENNIT_INLINE Codes low_half(Codes c) {
  for (uint8_t& b : c.v) b &= 15;
  return c;
}
SENNIT_INLINE Codes high_half(Codes c) {
  for (uint8_t& b : c.v) b = static_cast<uint8_t>(b >> 4);
  return c;
}
template <int kBits>
SENNIT_INLINE Sums add_group(Sums s, const Codes& c, const int8_t* x) {
  for (int r = 0; r < kQuantizedRows; ++r)
    for (int j = 0; j < 4; ++j) s.v[r] += c.v[4 * r + j] * x[j];
  return s;
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  Floats f;
  for (int r = 0; r < kQuantizedRows; ++r) {
    uint16_t h;
    __builtin_memcpy(&h, p + 2 * r, 2);
    f.v[r] = from_half(h);
  }
  return f;
}
SENNIT_INLINE Floats to_floats(const Sums& s) {
  Floats f;
  for (int r = 0; r < kQuantizedRows; ++r) f.v[r] = static_cast<float>(s.v[r]);
  return f;
}
SENNIT_INLINE Floats times(Floats a, float b) {
  for (float& x : a.v) x *= b;
  return a;
}
SENNIT_INLINE Floats add_product(Floats s, const Floats& a, const Floats& b) {
  for (int r = 0; r < kQuantizedRows; ++r) s.v[r] = __builtin_fmaf(a.v[r], b.v[r], s.v[r]);
  return s;
}
SENNIT_INLINE Floats subtract_product(Floats s, const Floats& a, float b) {
  for (int r = 0; r < kQuantizedRows; ++r) s.v[r] = __builtin_fmaf(-a.v[r], b, s.v[r]);
  return s;
}
SENNIT_INLINE void put(const Floats& s, float* y) {
  __builtin_memcpy(y, s.v, sizeof s.v);
}
SENNIT_INLINE Floats column(const Codes& c, int j) {
  Floats f;
  for (int r = 0; r < kQuantizedRows; ++r) f.v[r] = c.v[4 * r + j];
  return f;
}
SENNIT_INLINE Floats decoded(Floats q, const Floats& scale, const Floats& minimum) {
  for (int r = 0; r < kQuantizedRows; ++r) q.v[r] = scale.v[r] * q.v[r] - minimum.v[r];
  return q;
}
SENNIT_INLINE void put_pairs(const Floats& even, const Floats& odd, float* units) {
  for (int r = 0; r < kQuantizedRows; ++r) store(units + r, pair({even.v[r]}, {odd.v[r]}));
}
template <int kBits>
constexpr int kTile = 1;

#endif

#if !defined(SENNIT_LEVEL_avx2)
template <int>
SENNIT_INLINE Floats floats_of(const Sums& s) {
  return to_floats(s);
}
#endif

template <int kBits>
SENNIT_INLINE Codes group_codes(const uint8_t* block, int g) {
  if constexpr (kBits == 8) return load_codes(block + 64 * g);
  const Codes both = load_codes(block + 64 * (g % 4));
  return g < 4 ? low_half(both) : high_half(both);
}

// Adds to `sums` what the whole-number sums of one part of a block amount to; `at` is the row's block.
template <int kParts>
SENNIT_INLINE Floats add_part(const QuantizedTask& t, int64_t at, int part, Floats sums, Floats whole, Floats scale,
                              Floats minimum) {
  const float by = t.x.scale[at],
              total = kParts == 2 ? t.x.sums[2 * at + part] : t.x.sums[2 * at] + t.x.sums[2 * at + 1];
  return subtract_product(add_product(sums, whole, times(scale, by)), minimum, by * total);
}

// The sums of one panel with R rows of x that start at row i.
template <int kBits, int kParts, int R>
SENNIT_INLINE void panel_rows(const QuantizedTask& t, const uint8_t* panel, int64_t i, float (*y)[kQuantizedRows]) {
  constexpr int64_t kBytes = QuantizedLayout{kBits, kParts}.block_bytes();
  constexpr int kRun = kGroups / kParts;
  Floats sums[R];
  for (int r = 0; r < R; ++r) sums[r] = no_floats();
  for (int64_t b = 0; b < t.blocks; ++b, panel += kBytes) {
    const uint8_t* scales = panel + 64 * kBits;
    for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(panel + kAhead + line);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Sums whole[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) whole[r] = no_sums();
#pragma GCC unroll 8
      for (int g = part * kRun; g < (part + 1) * kRun; ++g) {
        const Codes codes = group_codes<kBits>(panel, g);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          whole[r] = add_group<kBits>(whole[r], codes, t.x.q + ((i + r) * t.blocks + b) * kQuantizedColumns + 4 * g);
      }
      const Floats scale = load_halves(scales + 32 * part), minimum = load_halves(scales + 32 * (kParts + part));
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
        sums[r] =
            add_part<kParts>(t, (i + r) * t.blocks + b, part, sums[r], floats_of<kBits>(whole[r]), scale, minimum);
    }
  }
  for (int r = 0; r < R; ++r) put(sums[r], y[r]);
}

template <int kBits, int kParts, int R>
[[gnu::noinline]] void panel_tile(const QuantizedTask& t, const uint8_t* panel, int64_t i, int64_t j) {
  float y[R][kQuantizedRows];
  panel_rows<kBits, kParts, R>(t, panel, i, y);
  const int64_t width = t.n - j < kQuantizedRows ? t.n - j : kQuantizedRows;
  for (int r = 0; r < R; ++r)
    for (int64_t c = 0; c < width; ++c) t.y[(i + r) * t.y_stride + j + c] = y[r][c] + (t.bias ? t.bias[j + c] : 0);
}

// At most R rows of x, those that are left.
template <int kBits, int kParts, int R>
SENNIT_INLINE void tile_of_rows(const QuantizedTask& t, const uint8_t* panel, int64_t i, int64_t j) {
  if (t.m - i >= R) return panel_tile<kBits, kParts, R>(t, panel, i, j);
  if constexpr (R > 1) tile_of_rows<kBits, kParts, R - 1>(t, panel, i, j);
}

#if defined(SENNIT_LEVEL_avx2)

// Many rows of x with codes of 8 bits: kSlab blocks of a panel are widened to 16 bits, so that the products of two
// columns with 8 rows are one instruction and their sum another. Sums between slabs wait in y.
constexpr int kSlab = 16, kWideRows = 6, kPairs = kQuantizedColumns / 2;

// [pair of columns][row][2]
struct alignas(32) WideBlock {
  int16_t w[kPairs][kQuantizedRows][2];
};

SENNIT_INLINE void widen(const uint8_t* block, WideBlock& to) {
  for (int g = 0; g < kGroups; ++g)
    for (int h = 0; h < 2; ++h) {  // rows 0 to 7 and 8 to 15
      const uint8_t* from = block + 64 * g + 32 * h;
      const __m256 low =
          _mm256_castsi256_ps(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
      const __m256 high =
          _mm256_castsi256_ps(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16))));
      const __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88)),
                    odd = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xDD));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to.w[2 * g][8 * h]), _mm256_permute4x64_epi64(even, 0xD8));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to.w[2 * g + 1][8 * h]), _mm256_permute4x64_epi64(odd, 0xD8));
    }
}

template <int kParts>
[[gnu::noinline]] void wide_tile(const QuantizedTask& t, const WideBlock* wide, const uint8_t* panel, int64_t first,
                                 int64_t count, int64_t i, int64_t j) {
  constexpr int64_t kBytes = QuantizedLayout{8, kParts}.block_bytes();
  alignas(32) int16_t x[kWideRows][kQuantizedColumns];
  Floats sums[kWideRows];
  for (int r = 0; r < kWideRows; ++r) {
    const float* y = t.y + (i + r) * t.y_stride + j;
    sums[r] = first == 0 ? no_floats() : Floats{{_mm256_loadu_ps(y), _mm256_loadu_ps(y + 8)}};
  }
  for (int64_t b = 0; b < count; ++b) {
    const uint8_t* scales = panel + (first + b) * kBytes + 64 * 8;
    for (int r = 0; r < kWideRows; ++r)
      for (int h = 0; h < 2; ++h)
        _mm256_store_si256(reinterpret_cast<__m256i*>(x[r] + 16 * h),
                           _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(
                               t.x.q + ((i + r) * t.blocks + first + b) * kQuantizedColumns + 16 * h))));
    for (int part = 0; part < kParts; ++part) {
      __m256i whole[kWideRows][2] = {};
#pragma GCC unroll 4
      for (int q = 0; q < kPairs / kParts; ++q) {
        const int p = part * kPairs / kParts + q;
        const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(wide[b].w[p][0]));
        const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(wide[b].w[p][8]));
#pragma GCC unroll 8
        for (int r = 0; r < kWideRows; ++r) {
          int two;
          __builtin_memcpy(&two, x[r] + 2 * p, 4);
          const __m256i pair = _mm256_set1_epi32(two);
          whole[r][0] = _mm256_add_epi32(whole[r][0], _mm256_madd_epi16(w0, pair));
          settle(whole[r][0]);
          whole[r][1] = _mm256_add_epi32(whole[r][1], _mm256_madd_epi16(w1, pair));
          settle(whole[r][1]);
        }
      }
      const Floats scale = load_halves(scales + 32 * part), minimum = load_halves(scales + 32 * (kParts + part));
#pragma GCC unroll 8
      for (int r = 0; r < kWideRows; ++r)
        sums[r] =
            add_part<kParts>(t, (i + r) * t.blocks + first + b, part, sums[r],
                             {{_mm256_cvtepi32_ps(whole[r][0]), _mm256_cvtepi32_ps(whole[r][1])}}, scale, minimum);
    }
  }
  const bool last = first + count == t.blocks;
  for (int r = 0; r < kWideRows; ++r) {
    for (int h = 0; h < 2 && last; ++h)
      sums[r].v[h] = _mm256_add_ps(sums[r].v[h], t.bias ? _mm256_loadu_ps(t.bias + j + 8 * h) : _mm256_setzero_ps());
    put(sums[r], t.y + (i + r) * t.y_stride + j);
  }
}

// Multiplies as many rows of x with the panel as are whole tiles; returns how many.
template <int kParts>
int64_t wide_rows(const QuantizedTask& t, const uint8_t* panel, int64_t j) {
  constexpr int64_t kBytes = QuantizedLayout{8, kParts}.block_bytes();
  const int64_t rows = t.m / kWideRows * kWideRows;
  WideBlock wide[kSlab];
  for (int64_t first = 0; rows > 0 && first < t.blocks; first += kSlab) {
    const int64_t count = t.blocks - first < kSlab ? t.blocks - first : kSlab;
    for (int64_t b = 0; b < count; ++b) widen(panel + (first + b) * kBytes, wide[b]);
    for (int64_t i = 0; i < rows; i += kWideRows) wide_tile<kParts>(t, wide, panel, first, count, i, j);
  }
  return rows;
}

#endif

template <int kBits, int kParts>
void multiply_all(const QuantizedTask& t) {
  constexpr int64_t kBytes = QuantizedLayout{kBits, kParts}.block_bytes();
  for (int64_t j = 0; j < t.n; j += kQuantizedRows) {
    const uint8_t* panel = t.panels + j / kQuantizedRows * t.blocks * kBytes;
    int64_t i = 0;
#if defined(SENNIT_LEVEL_avx2)
    if constexpr (kBits == 8)
      if (t.n - j >= kQuantizedRows) i = wide_rows<kParts>(t, panel, j);
#endif
    for (; i < t.m; i += kTile<kBits>) tile_of_rows<kBits, kParts, kTile<kBits>>(t, panel, i, j);
  }
}

void multiply(const QuantizedTask& t) {
  if (t.layout.bits == 4) return multiply_all<4, 1>(t);
  if (t.layout.parts == 1) return multiply_all<8, 1>(t);
  multiply_all<8, 2>(t);
}

// One panel of W as 16 of the 32 columns of a panel of pairs.
template <int kBits, int kParts>
void unpack_panel(const uint8_t* block, int64_t blocks, float* units) {
  for (int64_t b = 0; b < blocks; ++b, block += QuantizedLayout{kBits, kParts}.block_bytes()) {
    const uint8_t* scales = block + 64 * kBits;
    for (int g = 0; g < kGroups; ++g) {
      const int part = g * kParts / kGroups;
      const Floats scale = load_halves(scales + 32 * part), minimum = load_halves(scales + 32 * (kParts + part));
      const Codes codes = group_codes<kBits>(block, g);
      for (int j = 0; j < 4; j += 2, units += kPanelColumns)
        put_pairs(decoded(column(codes, j), scale, minimum), decoded(column(codes, j + 1), scale, minimum), units);
    }
  }
}

void unpack(QuantizedLayout layout, const uint8_t* panel, int64_t blocks, float* units) {
  if (layout.bits == 4) return unpack_panel<4, 1>(panel, blocks, units);
  if (layout.parts == 1) return unpack_panel<8, 1>(panel, blocks, units);
  unpack_panel<8, 2>(panel, blocks, units);
}

void round_row(const float* x, int64_t k, int8_t* q, float* scale, float* sums) {
  for (int64_t b = 0; b * kQuantizedColumns < k; ++b, q += kQuantizedColumns) {
    const float* from = x + b * kQuantizedColumns;
    const int64_t n = k - b * kQuantizedColumns < kQuantizedColumns ? k - b * kQuantizedColumns : kQuantizedColumns;
    float most = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float a = __builtin_fabsf(from[i]);
      most = a > most ? a : most;
    }
    const float by = most > 1e-30f ? 127 / most : 0;
    int total[2] = {0, 0};
    for (int64_t i = 0; i < kQuantizedColumns; ++i) {
      // Adding 1.5 2^23 rounds to the nearest whole number, ties to even.
      const float whole = i < n ? (from[i] * by + 0x1.8p23f) - 0x1.8p23f : 0;
      q[i] = static_cast<int8_t>(whole);
      total[i / 16] += q[i];
    }
    scale[b] = by > 0 ? most / 127 : 0;
    sums[2 * b] = static_cast<float>(total[0]), sums[2 * b + 1] = static_cast<float>(total[1]);
  }
}

}  // namespace

const Quantized quantized_table = {.round_row = round_row, .multiply = multiply, .unpack = unpack};

}  // namespace sennit::kernels::SENNIT_LEVEL
