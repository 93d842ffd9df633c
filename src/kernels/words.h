#pragma once
// Whole numbers of 16 bits, two in a lane of 32 bits, and sums of 32 bits of products of such pairs, for kernels only
// (see simd.h).
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

#if defined(SENNIT_LEVEL_avx512)

struct Words {
  __m512i v;
};
SENNIT_INLINE Words no_words() {
  return {_mm512_setzero_si512()};
}
// The same two in every pair.
SENNIT_INLINE Words set_pair(const int16_t* p) {
  int pair;
  __builtin_memcpy(&pair, p, 4);
  return {_mm512_set1_epi32(pair)};
}
// Of whole numbers of 8 bits.
SENNIT_INLINE Words widen_codes(const uint8_t* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// Words of a and b in turns, from the lower and the upper halves of each 128 bits.
SENNIT_INLINE Words lower_turns(Words a, Words b) {
  return {_mm512_unpacklo_epi16(a.v, b.v)};
}
SENNIT_INLINE Words upper_turns(Words a, Words b) {
  return {_mm512_unpackhi_epi16(a.v, b.v)};
}
// sum + products of pairs, in 32 bits
SENNIT_INLINE Words add_pairs(Words sum, Words a, Words b) {
  return {_mm512_dpwssd_epi32(sum.v, a.v, b.v)};
}
SENNIT_INLINE vf float_pairs(Words sum) {
  return {_mm512_cvtepi32_ps(sum.v)};
}
// The nearest whole numbers.
SENNIT_INLINE void store_rounded(int16_t* p, vf x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x.v)));
}

#elif defined(SENNIT_LEVEL_avx2)

struct Words {
  __m256i v;
};
SENNIT_INLINE Words no_words() {
  return {_mm256_setzero_si256()};
}
SENNIT_INLINE Words set_pair(const int16_t* p) {
  int pair;
  __builtin_memcpy(&pair, p, 4);
  return {_mm256_set1_epi32(pair)};
}
SENNIT_INLINE Words widen_codes(const uint8_t* p) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
SENNIT_INLINE Words lower_turns(Words a, Words b) {
  return {_mm256_unpacklo_epi16(a.v, b.v)};
}
SENNIT_INLINE Words upper_turns(Words a, Words b) {
  return {_mm256_unpackhi_epi16(a.v, b.v)};
}
SENNIT_INLINE Words add_pairs(Words sum, Words a, Words b) {
  return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(a.v, b.v))};
}
SENNIT_INLINE vf float_pairs(Words sum) {
  return {_mm256_cvtepi32_ps(sum.v)};
}
SENNIT_INLINE void store_rounded(int16_t* p, vf x) {
  const __m256i whole = _mm256_cvtps_epi32(x.v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}

#elif defined(SENNIT_LEVEL_scalar)

struct Words {
  int32_t v[2];  // of a sum, v[0]
};
SENNIT_INLINE Words no_words() {
  return {};
}
SENNIT_INLINE Words set_pair(const int16_t* p) {
  return {{p[0], p[1]}};
}
SENNIT_INLINE Words widen_codes(const uint8_t* p) {
  return {{static_cast<int8_t>(p[0]), static_cast<int8_t>(p[1])}};
}
SENNIT_INLINE Words lower_turns(Words a, Words b) {
  return {{a.v[0], b.v[0]}};
}
SENNIT_INLINE Words upper_turns(Words a, Words b) {
  return {{a.v[1], b.v[1]}};
}
SENNIT_INLINE Words add_pairs(Words sum, Words a, Words b) {
  return {{sum.v[0] + a.v[0] * b.v[0] + a.v[1] * b.v[1]}};
}
SENNIT_INLINE vf float_pairs(Words sum) {
  return {static_cast<float>(sum.v[0])};
}
SENNIT_INLINE void store_rounded(int16_t* p, vf x) {
  const float whole = __builtin_rintf(x.v);
  *p = static_cast<int16_t>(__builtin_isfinite(whole) ? whole : 0);
}

#endif

inline constexpr int kWordLanes = 2 * kLanes;  // numbers of Words

}  // namespace sennit::kernels::SENNIT_LEVEL
