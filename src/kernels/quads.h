#pragma once
// Four whole numbers of 8 bits, from -127 to 127, in a 32-bit lane, and sums of 32 bits of their products, for kernels
// only (see simd.h). Both travel as the bits of a vf.
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

#if defined(SENNIT_LEVEL_avx512)

SENNIT_INLINE __m512i whole(vf a) {
  return _mm512_castps_si512(a.v);
}
// The same four numbers, or the same sum, in every lane.
SENNIT_INLINE vf set_sum(int32_t sum) {
  return {_mm512_castsi512_ps(_mm512_set1_epi32(sum))};
}
// The left factor of a product has 128 added to each number: the instruction takes one factor without sign. What that
// makes too much is 128 times the sum of the right factor's numbers.
SENNIT_INLINE vf left_quads(vf a) {
  return {_mm512_castsi512_ps(_mm512_xor_si512(whole(a), _mm512_set1_epi8(-128)))};
}
SENNIT_INLINE vf dot_quads(vf a, vf b, vf sum) {
  return {_mm512_castsi512_ps(_mm512_dpbusd_epi32(whole(sum), whole(a), whole(b)))};
}
SENNIT_INLINE vf float_sums(vf sum, vf b_sum) {
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(whole(sum), _mm512_slli_epi32(whole(b_sum), 7)))};
}

#elif defined(SENNIT_LEVEL_avx2)

SENNIT_INLINE __m256i whole(vf a) {
  return _mm256_castps_si256(a.v);
}
SENNIT_INLINE vf set_sum(int32_t sum) {
  return {_mm256_castsi256_ps(_mm256_set1_epi32(sum))};
}
SENNIT_INLINE vf left_quads(vf a) {
  return a;
}
// |a| times b with the sign of a: a pair's sum is at most 2 * 127 * 127 and fits 16 bits.
SENNIT_INLINE vf dot_quads(vf a, vf b, vf sum) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(whole(a)), _mm256_sign_epi8(whole(b), whole(a)));
  const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return {_mm256_castsi256_ps(_mm256_add_epi32(whole(sum), fours))};
}
SENNIT_INLINE vf float_sums(vf sum, vf) {
  return {_mm256_cvtepi32_ps(whole(sum))};
}

#elif defined(SENNIT_LEVEL_scalar)

SENNIT_INLINE uint32_t whole(vf a) {
  return __builtin_bit_cast(uint32_t, a.v);
}
SENNIT_INLINE vf set_sum(int32_t sum) {
  return {__builtin_bit_cast(float, sum)};
}
SENNIT_INLINE vf left_quads(vf a) {
  return a;
}
SENNIT_INLINE vf dot_quads(vf a, vf b, vf sum) {
  auto s = static_cast<int32_t>(whole(sum));
#pragma GCC unroll 4
  for (int i = 0; i < 32; i += 8) s += static_cast<int8_t>(whole(a) >> i) * static_cast<int8_t>(whole(b) >> i);
  return {__builtin_bit_cast(float, s)};
}
SENNIT_INLINE vf float_sums(vf sum, vf) {
  return {static_cast<float>(static_cast<int32_t>(whole(sum)))};
}

#endif

SENNIT_INLINE vf set_quad(const int8_t* four) {
  int32_t lane;
  __builtin_memcpy(&lane, four, 4);
  return set_sum(lane);
}

}  // namespace sennit::kernels::SENNIT_LEVEL
