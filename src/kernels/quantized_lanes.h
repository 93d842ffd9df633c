#pragma once
// Sixteen rows of a panel of quantized weights side by side: their codes, the sums of these in whole numbers, and
// floats. For kernels only (see simd.h).
#include "kernels/halves.h"
#include "kernels/pairs.h"
#include "kernels/quantized.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

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
// Of each byte, the bits of `mask` once it has moved by so many to the left or, below 0, to the right.
SENNIT_INLINE Codes moved_bits(Codes c, int left, int mask) {
  const __m512i moved = left > 0 ? _mm512_slli_epi16(c.v, left) : _mm512_srli_epi16(c.v, -left);
  return {_mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(mask)))};
}
SENNIT_INLINE Codes joined(Codes a, Codes b) {
  return {_mm512_or_si512(a.v, b.v)};
}
// Adds four products a row.
SENNIT_INLINE Sums add_group(Sums s, Codes c, const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  return {_mm512_dpbusd_epi32(s.v, c.v, _mm512_set1_epi32(four))};
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
SENNIT_INLINE Sums less(Sums s, int32_t n) {
  return {_mm512_sub_epi32(s.v, _mm512_set1_epi32(n))};
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
constexpr int kTile = 6, kPanels = 2;  // rows of x and panels of W at a time

#elif defined(SENNIT_LEVEL_avx2)

// Rows 0-7 and 8-15: of pairs of columns, in 16 bits, where those of a whole block fit if codes have 4 bits (8 * 2 * 15
// * 127 < 2^15), and then in 32. Codes of more bits are read as their low half and what is above it in two passes.
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
SENNIT_INLINE Codes moved_bits(Codes c, int left, int mask) {
  for (__m256i& v : c.v)
    v = _mm256_and_si256(left > 0 ? _mm256_slli_epi16(v, left) : _mm256_srli_epi16(v, -left),
                         _mm256_set1_epi8(static_cast<char>(mask)));
  return c;
}
SENNIT_INLINE Codes joined(Codes a, Codes b) {
  return {{_mm256_or_si256(a.v[0], b.v[0]), _mm256_or_si256(a.v[1], b.v[1])}};
}
// Ends an addition here: g++ would else gather the products of a whole tile first, and registers are too few for that.
SENNIT_INLINE void settle(__m256i& sum) {
  asm volatile("" : "+x"(sum));
}
SENNIT_INLINE Sums add_group(Sums s, Codes c, const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  for (int h = 0; h < 2; ++h) {
    s.v[h] = _mm256_add_epi16(s.v[h], _mm256_maddubs_epi16(c.v[h], _mm256_set1_epi32(four)));
    settle(s.v[h]);
  }
  return s;
}
SENNIT_INLINE Sums whole_of(Sums low) {
  for (__m256i& v : low.v) v = _mm256_madd_epi16(v, _mm256_set1_epi16(1));
  return low;
}
SENNIT_INLINE Sums add_high(Sums whole, Sums high) {
  for (int h = 0; h < 2; ++h)
    whole.v[h] = _mm256_add_epi32(whole.v[h], _mm256_madd_epi16(high.v[h], _mm256_set1_epi16(16)));
  return whole;
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  return {{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))}};
}
SENNIT_INLINE Sums less(Sums s, int32_t n) {
  return {{_mm256_sub_epi32(s.v[0], _mm256_set1_epi32(n)), _mm256_sub_epi32(s.v[1], _mm256_set1_epi32(n))}};
}
SENNIT_INLINE Floats to_floats(Sums s) {
  return {{_mm256_cvtepi32_ps(s.v[0]), _mm256_cvtepi32_ps(s.v[1])}};
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
// The registers are for the sums of the next pass: g++ would rather move those.
SENNIT_INLINE void put_away(Sums& whole) {
  asm volatile("" : "+m"(whole));
}
constexpr int kTile = 6, kPanels = 1;  // rows of x and panels of W at a time
constexpr bool kHalves = true;

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
SENNIT_INLINE Codes moved_bits(Codes c, int left, int mask) {
  for (uint8_t& b : c.v) b = static_cast<uint8_t>((left > 0 ? b << left : b >> -left) & mask);
  return c;
}
SENNIT_INLINE Codes joined(Codes a, const Codes& b) {
  for (int i = 0; i < 4 * kQuantizedRows; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] | b.v[i]);
  return a;
}
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
SENNIT_INLINE Sums less(Sums s, int32_t n) {
  for (int32_t& v : s.v) v -= n;
  return s;
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
constexpr int kTile = 1, kPanels = 1;

#endif

#if !defined(SENNIT_LEVEL_avx2)  // the sums are whole as they are
constexpr bool kHalves = false;
SENNIT_INLINE Sums whole_of(const Sums& s) {
  return s;
}
SENNIT_INLINE Sums add_high(const Sums& whole, const Sums&) {
  return whole;
}
SENNIT_INLINE void put_away(Sums&) {}
#endif

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
