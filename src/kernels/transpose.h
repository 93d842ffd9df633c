#pragma once
// Transposing a square of lanes in registers, for kernels only (see simd.h).
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)

// Swaps bit S of the lane with the bit that tells `low` from `high`.
template <int S>
SENNIT_INLINE void exchange(vf& low, vf& high) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i bit = _mm512_set1_epi32(S), other = _mm512_set1_epi32(kLanes);
  const __mmask16 odd = _mm512_test_epi32_mask(lane, bit);
  const __m512i to_low = _mm512_mask_add_epi32(lane, odd, _mm512_sub_epi32(lane, bit), other);
  const __m512i to_high = _mm512_mask_add_epi32(_mm512_add_epi32(lane, bit), odd, lane, other);
  const __m512 a = low.v, b = high.v;
  low.v = _mm512_permutex2var_ps(a, to_low, b);
  high.v = _mm512_permutex2var_ps(a, to_high, b);
}

#elif defined(SENNIT_LEVEL_avx2)

template <int S>
SENNIT_INLINE void exchange(vf& low, vf& high) {
  constexpr int kOdd = S == 1 ? 0xAA : S == 2 ? 0xCC : 0xF0;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i across = _mm256_xor_si256(lane, _mm256_set1_epi32(S));
  const __m256 a = low.v, b = high.v;
  low.v = _mm256_blend_ps(a, _mm256_permutevar8x32_ps(b, across), kOdd);
  high.v = _mm256_blend_ps(_mm256_permutevar8x32_ps(a, across), b, kOdd);
}

#else

template <int S>
SENNIT_INLINE void exchange(vf&, vf&) {}

#endif

// x[r] lane l becomes x[l] lane r: one exchange a bit of the index.
template <int S = kLanes / 2>
SENNIT_INLINE void transpose(vf (&x)[kLanes]) {
  if constexpr (S > 0) {
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r)
      if (!(r & S)) exchange<S>(x[r], x[r + S]);
    transpose<S / 2>(x);
  }
}

}  // namespace sennit::kernels::SENNIT_LEVEL
