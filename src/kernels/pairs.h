#pragma once
// Pairs of bf16 in 32-bit lanes, the lower half the even member, for kernels only (see simd.h). They travel as the bits
// of a vf. Rounding is to nearest, ties to even; NaN stays NaN; AVX-512 takes subnormal numbers for zero.
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)

// The pairs of 2 kLanes consecutive floats, given as two vectors.
SENNIT_INLINE vf pair_up(vf a, vf b) { return {_mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(b.v, a.v))}; }
SENNIT_INLINE vf pair(vf even, vf odd) {
  alignas(64) static constexpr int16_t kInterleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                          8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = _mm512_castps_si512(pair_up(even, odd).v);
  return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(kInterleave), halves))};
}
SENNIT_INLINE vf odd_of(vf a) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(-65536)))};
}
// c + a.even b.even + a.odd b.odd
SENNIT_INLINE vf dot_pairs(vf a, vf b, vf c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)_mm512_castps_si512(a.v), (__m512bh)_mm512_castps_si512(b.v))};
}

#elif defined(SENNIT_LEVEL_avx2)

// a rounded to bf16, in the upper halves.
SENNIT_INLINE __m256i rounded(vf a) {
  const __m256i u = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  return _mm256_blendv_epi8(r, quiet, _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)));
}
SENNIT_INLINE vf pair(vf even, vf odd) {
  const __m256i low = _mm256_srli_epi32(rounded(even), 16);
  return {_mm256_castsi256_ps(_mm256_blend_epi16(low, rounded(odd), 0xAA))};
}
SENNIT_INLINE vf pair_up(vf a, vf b) {
  const __m256 even = _mm256_shuffle_ps(a.v, b.v, 0x88), odd = _mm256_shuffle_ps(a.v, b.v, 0xDD);
  const vf mixed = pair({even}, {odd});  // a0 b0 a1 b1 by 64-bit quarters
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(mixed.v), 0xD8))};
}
SENNIT_INLINE vf even_of(vf a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a.v), 16))};
}
SENNIT_INLINE vf odd_of(vf a) {
  return {_mm256_and_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-65536)))};
}
SENNIT_INLINE vf dot_pairs(vf a, vf b, vf c) {
  return fma(odd_of(a), odd_of(b), fma(even_of(a), even_of(b), c));
}

#else

SENNIT_INLINE uint32_t bits_of(vf a) {
  return __builtin_bit_cast(uint32_t, a.v);
}
SENNIT_INLINE vf from_bits(uint32_t u) {
  return {__builtin_bit_cast(float, u)};
}
SENNIT_INLINE uint32_t rounded(vf a) {
  const uint32_t u = bits_of(a);
  return a.v != a.v ? u | 0x400000 : u + 0x7fff + ((u >> 16) & 1);
}
SENNIT_INLINE vf pair(vf even, vf odd) {
  return from_bits((rounded(even) >> 16) | (rounded(odd) & 0xffff0000u));
}
SENNIT_INLINE vf pair_up(vf a, vf b) {
  return pair(a, b);
}
SENNIT_INLINE vf even_of(vf a) {
  return from_bits(bits_of(a) << 16);
}
SENNIT_INLINE vf odd_of(vf a) {
  return from_bits(bits_of(a) & 0xffff0000u);
}
SENNIT_INLINE vf dot_pairs(vf a, vf b, vf c) {
  return fma(odd_of(a), odd_of(b), fma(even_of(a), even_of(b), c));
}

#endif

// a rounded to bf16, as floats.
SENNIT_INLINE vf rounded_to_bf16(vf a) { return odd_of(pair(a, a)); }

// 2^x to one part in 9000, a twentieth of what rounding to bf16 may change: exactly 1 at 0, 0 below -150, +inf from 128
// on, NaN for NaN. A cubic for 2^r on [0, 1) of least relative error among those that meet 1 and 2 at the ends.
SENNIT_INLINE vf short_exp2(vf x) {
#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)
  const vf r = {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};  // x - floor(x), 0 for -inf
#else
  x = min(set(200), max(set(-200), x));
  const vf n = round(x - set(0.5f)), r = x - n;
#endif
  vf p = set(0.07826796669512686f);
  p = fma(p, r, set(0.22630768705159426f));
  p = fma(p, r, set(0.6954243462532789f));
  p = fma(p, r, set(1));
#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)
  return {_mm512_scalef_ps(p.v, x.v)};  // by 2^floor(x)
#else
  return scale_by_power(p, n);
#endif
}

}  // namespace sennit::kernels::SENNIT_LEVEL
