#pragma once
// Numbers of 16 and 8 bits widened to floats, and floats rounded to 8 bits, for kernels only (see simd.h).
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

// An f16, exactly.
SENNIT_INLINE float from_half(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16, exponent = (h >> 10) & 31, fraction = h & 0x3ff;
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000 | fraction << 13);
  if (exponent) return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 0x1p-24f;
  return sign ? -tiny : tiny;
}

#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)
SENNIT_INLINE vf load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
SENNIT_INLINE vf set_f16(uint16_t h) {
  return {_mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(h)))};
}
SENNIT_INLINE vf load_i8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
SENNIT_INLINE void store_rounded(int8_t* p, vf a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
#elif defined(SENNIT_LEVEL_avx2)
SENNIT_INLINE vf load_f16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
SENNIT_INLINE vf set_f16(uint16_t h) {
  return {_mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(h)))};
}
SENNIT_INLINE vf load_i8(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
}
SENNIT_INLINE void store_rounded(int8_t* p, vf a) {
  const __m256i w = _mm256_cvtps_epi32(a.v);
  const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(h, h));
}
#else
SENNIT_INLINE vf load_f16(const uint16_t* p) {
  return {from_half(*p)};
}
SENNIT_INLINE vf set_f16(uint16_t h) {
  return {from_half(h)};
}
SENNIT_INLINE vf load_i8(const int8_t* p) {
  return {static_cast<float>(*p)};
}
SENNIT_INLINE void store_rounded(int8_t* p, vf a) {
  *p = static_cast<int8_t>(round(a).v);
}
#endif

}  // namespace sennit::kernels::SENNIT_LEVEL
