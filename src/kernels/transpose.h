#pragma once
// Transposing a square of lanes in registers, for kernels only (see simd.h).
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)

// Swaps bit S of the lane with the bit that tells `low` from `high`.
template <int S>
SENNIT_INLINE void exchange(vf& low, vf& high) {
  const __m512 a = low.v, b = high.v;
  if constexpr (S == 1) {
    low.v = _mm512_mask_moveldup_ps(a, 0xAAAA, b);
    high.v = _mm512_mask_movehdup_ps(b, 0x5555, a);
  } else if constexpr (S == 2) {
    low.v = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    high.v = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  } else if constexpr (S == 4) {
    low.v = _mm512_mask_shuffle_f32x4(a, 0xF0F0, b, b, _MM_SHUFFLE(2, 2, 0, 0));
    high.v = _mm512_mask_shuffle_f32x4(b, 0x0F0F, a, a, _MM_SHUFFLE(3, 3, 1, 1));
  } else {
    low.v = _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(1, 0, 1, 0));
    high.v = _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 2, 3, 2));
  }
}

#elif defined(SENNIT_LEVEL_avx2)

template <int S>
SENNIT_INLINE void exchange(vf& low, vf& high) {
  const __m256 a = low.v, b = high.v;
  if constexpr (S == 1) {
    low.v = _mm256_blend_ps(a, _mm256_moveldup_ps(b), 0xAA);
    high.v = _mm256_blend_ps(_mm256_movehdup_ps(a), b, 0xAA);
  } else if constexpr (S == 2) {
    low.v = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0));
    high.v = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2));
  } else {
    low.v = _mm256_permute2f128_ps(a, b, 0x20);
    high.v = _mm256_permute2f128_ps(a, b, 0x31);
  }
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

// x[0] lane r = the sum of x[r]
template <int S = kLanes / 2>
SENNIT_INLINE void fold(vf* x) {
  if constexpr (S > 0) {
#pragma GCC unroll 8
    for (int r = 0; r < S; ++r) exchange<S>(x[r], x[r + S]), x[r] = x[r] + x[r + S];
    fold<S / 2>(x);
  }
}

}  // namespace sennit::kernels::SENNIT_LEVEL
