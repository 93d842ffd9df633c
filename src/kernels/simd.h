#pragma once
// A vector of floats at the level that this translation unit is compiled for: one lane (scalar), 8 (AVX2) or 16
// (AVX-512). Everything is in the level's namespace and forced inline, so that no function compiled for one level can be
// linked into another. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/sum.h"

#if !defined(SENNIT_LEVEL)
#error "simd.h is for kernels, which are compiled once per level"
#endif
#if defined(SENNIT_LEVEL_avx2) || defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)
#include <immintrin.h>
#endif

#define SENNIT_INLINE inline __attribute__((always_inline))

namespace sennit::kernels::SENNIT_LEVEL {

#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)

inline constexpr int kLanes = 16;
struct vf {
  __m512 v;
};
struct vmask {
  __mmask16 m;
};
SENNIT_INLINE vf set(float x) { return {_mm512_set1_ps(x)}; }
SENNIT_INLINE vf zero() { return {_mm512_setzero_ps()}; }
SENNIT_INLINE vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
SENNIT_INLINE void store(float* p, vf a) { _mm512_storeu_ps(p, a.v); }
SENNIT_INLINE __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
SENNIT_INLINE vf load_part(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
SENNIT_INLINE void store_part(float* p, vf a, int64_t n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
SENNIT_INLINE vf operator+(vf a, vf b) { return {_mm512_add_ps(a.v, b.v)}; }
SENNIT_INLINE vf operator-(vf a, vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
SENNIT_INLINE vf operator*(vf a, vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
SENNIT_INLINE vf operator/(vf a, vf b) { return {_mm512_div_ps(a.v, b.v)}; }
SENNIT_INLINE vf fma(vf a, vf b, vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a b + c
SENNIT_INLINE vf fnma(vf a, vf b, vf c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a b
SENNIT_INLINE vf max(vf a, vf b) { return {_mm512_max_ps(a.v, b.v)}; }
SENNIT_INLINE vf min(vf a, vf b) { return {_mm512_min_ps(a.v, b.v)}; }
SENNIT_INLINE vf sqrt(vf a) { return {_mm512_sqrt_ps(a.v)}; }
SENNIT_INLINE vf abs(vf a) { return {_mm512_abs_ps(a.v)}; }
SENNIT_INLINE vf round(vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
SENNIT_INLINE vmask less(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
SENNIT_INLINE vf select(vmask m, vf yes, vf no) { return {_mm512_mask_blend_ps(m.m, no.v, yes.v)}; }
// a * 2^n for whole n in [-250, 250]
SENNIT_INLINE vf scale_by_power(vf a, vf n) { return {_mm512_scalef_ps(a.v, n.v)}; }
SENNIT_INLINE vf exponent(vf a) { return {_mm512_getexp_ps(a.v)}; }
SENNIT_INLINE vf mantissa(vf a) { return {_mm512_getmant_ps(a.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src)}; }  // in [1, 2)
// Sums in a fixed order: halves, then halves of those.
SENNIT_INLINE float sum(vf a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
SENNIT_INLINE float highest(vf a) { return _mm512_reduce_max_ps(a.v); }
// bf16 held as its upper 16 bits
SENNIT_INLINE vf load_bf16(const uint16_t* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
SENNIT_INLINE void store_bf16(uint16_t* p, vf a) {
  const __m512i u = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i q = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, r, q)));
}

#elif defined(SENNIT_LEVEL_avx2)

inline constexpr int kLanes = 8;
struct vf {
  __m256 v;
};
struct vmask {
  __m256 m;
};
SENNIT_INLINE vf set(float x) { return {_mm256_set1_ps(x)}; }
SENNIT_INLINE vf zero() { return {_mm256_setzero_ps()}; }
SENNIT_INLINE vf load(const float* p) { return {_mm256_loadu_ps(p)}; }
SENNIT_INLINE void store(float* p, vf a) { _mm256_storeu_ps(p, a.v); }
SENNIT_INLINE __m256i first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SENNIT_INLINE vf load_part(const float* p, int64_t n) { return {_mm256_maskload_ps(p, first(n))}; }
SENNIT_INLINE void store_part(float* p, vf a, int64_t n) { _mm256_maskstore_ps(p, first(n), a.v); }
SENNIT_INLINE vf operator+(vf a, vf b) { return {_mm256_add_ps(a.v, b.v)}; }
SENNIT_INLINE vf operator-(vf a, vf b) { return {_mm256_sub_ps(a.v, b.v)}; }
SENNIT_INLINE vf operator*(vf a, vf b) { return {_mm256_mul_ps(a.v, b.v)}; }
SENNIT_INLINE vf operator/(vf a, vf b) { return {_mm256_div_ps(a.v, b.v)}; }
SENNIT_INLINE vf fma(vf a, vf b, vf c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
SENNIT_INLINE vf fnma(vf a, vf b, vf c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
SENNIT_INLINE vf max(vf a, vf b) { return {_mm256_max_ps(a.v, b.v)}; }
SENNIT_INLINE vf min(vf a, vf b) { return {_mm256_min_ps(a.v, b.v)}; }
SENNIT_INLINE vf sqrt(vf a) { return {_mm256_sqrt_ps(a.v)}; }
SENNIT_INLINE vf abs(vf a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
SENNIT_INLINE vf round(vf a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
SENNIT_INLINE vmask less(vf a, vf b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
SENNIT_INLINE vf select(vmask m, vf yes, vf no) { return {_mm256_blendv_ps(no.v, yes.v, m.m)}; }
SENNIT_INLINE __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
SENNIT_INLINE vf scale_by_power(vf a, vf n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v), half = _mm256_srai_epi32(whole, 1);
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, power_of_two(half)), power_of_two(_mm256_sub_epi32(whole, half)))};
}
SENNIT_INLINE vf exponent(vf a) {
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_srli_epi32(_mm256_castps_si256(a.v), 23), _mm256_set1_epi32(127)))};
}
SENNIT_INLINE vf mantissa(vf a) {
  return {_mm256_or_ps(_mm256_and_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff))), _mm256_set1_ps(1.0f))};
}
SENNIT_INLINE float sum(vf a) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
SENNIT_INLINE float highest(vf a) {
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
SENNIT_INLINE vf load_bf16(const uint16_t* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
}
SENNIT_INLINE void store_bf16(uint16_t* p, vf a) {
  const __m256i u = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i q = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  const __m256i s = _mm256_blendv_epi8(r, q, _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)));
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
}

#else

inline constexpr int kLanes = 1;
struct vf {
  float v;
};
struct vmask {
  bool m;
};
SENNIT_INLINE vf set(float x) { return {x}; }
SENNIT_INLINE vf zero() { return {0}; }
SENNIT_INLINE vf load(const float* p) { return {*p}; }
SENNIT_INLINE void store(float* p, vf a) { *p = a.v; }
SENNIT_INLINE vf load_part(const float* p, int64_t n) { return {n > 0 ? *p : 0}; }
SENNIT_INLINE void store_part(float* p, vf a, int64_t n) {
  if (n > 0) *p = a.v;
}
SENNIT_INLINE vf operator+(vf a, vf b) { return {a.v + b.v}; }
SENNIT_INLINE vf operator-(vf a, vf b) { return {a.v - b.v}; }
SENNIT_INLINE vf operator*(vf a, vf b) { return {a.v * b.v}; }
SENNIT_INLINE vf operator/(vf a, vf b) { return {a.v / b.v}; }
SENNIT_INLINE vf fma(vf a, vf b, vf c) { return {a.v * b.v + c.v}; }
SENNIT_INLINE vf fnma(vf a, vf b, vf c) { return {c.v - a.v * b.v}; }
SENNIT_INLINE vf max(vf a, vf b) { return {a.v > b.v ? a.v : b.v}; }
SENNIT_INLINE vf min(vf a, vf b) { return {a.v < b.v ? a.v : b.v}; }
SENNIT_INLINE vf sqrt(vf a) { return {__builtin_sqrtf(a.v)}; }
SENNIT_INLINE vf abs(vf a) { return {__builtin_fabsf(a.v)}; }
SENNIT_INLINE vf round(vf a) { return {__builtin_nearbyintf(a.v)}; }
SENNIT_INLINE vmask less(vf a, vf b) { return {a.v < b.v}; }
SENNIT_INLINE vf select(vmask m, vf yes, vf no) { return m.m ? yes : no; }
SENNIT_INLINE vf scale_by_power(vf a, vf n) { return {__builtin_ldexpf(a.v, static_cast<int>(n.v))}; }
SENNIT_INLINE vf exponent(vf a) { return {static_cast<float>(__builtin_ilogbf(a.v))}; }
SENNIT_INLINE vf mantissa(vf a) {
  return {__builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, a.v) & 0x007fffffu) | 0x3f800000u)};
}
SENNIT_INLINE float sum(vf a) { return a.v; }
SENNIT_INLINE float highest(vf a) { return a.v; }
SENNIT_INLINE vf load_bf16(const uint16_t* p) { return {__builtin_bit_cast(float, uint32_t{*p} << 16)}; }
SENNIT_INLINE void store_bf16(uint16_t* p, vf a) {
  const uint32_t u = __builtin_bit_cast(uint32_t, a.v);
  *p = static_cast<uint16_t>(a.v != a.v ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

#endif

SENNIT_INLINE vf operator-(vf a) { return zero() - a; }

// round(x / ln 2)
SENNIT_INLINE vf powers_in(vf x) {
  return round(x * set(1.44269504088896341f));
}
// e^x to 1 ulp or so, where n = powers_in(x) is a power that scale_by_power takes (Cephes' split of ln 2 and a degree-6
// polynomial).
SENNIT_INLINE vf exp_by_power(vf x, vf n) {
  vf r = fnma(n, set(0.693359375f), x);
  r = fnma(n, set(-2.12194440e-4f), r);
  vf p = set(1.9875691500e-4f);
  p = fma(p, r, set(1.3981999507e-3f));
  p = fma(p, r, set(8.3334519073e-3f));
  p = fma(p, r, set(4.1665795894e-2f));
  p = fma(p, r, set(1.6666665459e-1f));
  p = fma(p, r, set(5.0000001201e-1f));
  return scale_by_power(fma(p, r * r, r) + set(1.0f), n);
}

// e^x: 0 below -87.3, +inf above 88.7, NaN for NaN.
SENNIT_INLINE vf exp(vf x) {
  vf y = exp_by_power(x, powers_in(min(max(x, set(-88.0f)), set(88.8f))));
  y = select(less(x, set(-87.3f)), zero(), y);
  return select(less(set(88.7f), x), set(__builtin_inff()), y);
}

// The same for x up to 80, as log decays are, at less cost: 0 far below -87.3 and for -inf.
SENNIT_INLINE vf exp_decay(vf x) {
  x = max(set(-170.0f), x);
  return exp_by_power(x, powers_in(x));
}

// 2^x for x <= 127: 1 ulp, exactly 1 at 0, 0 below -150, NaN for NaN. A polynomial for 2^r on [-1/2, 1/2] that
// interpolates at Chebyshev nodes; cheaper than exp() by the reduction of its argument.
SENNIT_INLINE vf exp2(vf x) {
  x = max(set(-200), x);
  const vf n = round(x), r = x - n;
  vf p = set(1.5453162942e-4f);
  p = fma(p, r, set(1.3390863365e-3f));
  p = fma(p, r, set(9.6180825573e-3f));
  p = fma(p, r, set(5.5503571142e-2f));
  p = fma(p, r, set(2.4022650761e-1f));
  p = fma(p, r, set(6.9314718803e-1f));
  return scale_by_power(fma(p, r, set(1)), n);
}

// ln x for normal x > 0 (Cephes' polynomial on [sqrt(1/2), sqrt(2))); -inf at 0 and below the normal range.
SENNIT_INLINE vf log(vf x) {
  vf e = exponent(x), m = mantissa(x);
  const vmask high = less(set(1.41421356237f), m);
  e = select(high, e + set(1.0f), e);
  m = select(high, m * set(0.5f), m) - set(1.0f);
  vf p = set(7.0376836292e-2f);
  p = fma(p, m, set(-1.1514610310e-1f));
  p = fma(p, m, set(1.1676998740e-1f));
  p = fma(p, m, set(-1.2420140846e-1f));
  p = fma(p, m, set(1.4249322787e-1f));
  p = fma(p, m, set(-1.6668057665e-1f));
  p = fma(p, m, set(2.0000714765e-1f));
  p = fma(p, m, set(-2.4999993993e-1f));
  p = fma(p, m, set(3.3333331174e-1f));
  const vf m2 = m * m;
  vf y = p * m * m2;
  y = fma(e, set(-2.12194440e-4f), y);
  y = fnma(set(0.5f), m2, y);
  y = fma(e, set(0.693359375f), m + y);
  return select(less(x, set(1.17549435e-38f)), set(-__builtin_inff()), y);
}

SENNIT_INLINE vf sigmoid(vf x) {
  const vf e = exp(-abs(x)), r = set(1.0f) / (set(1.0f) + e);
  return select(less(x, zero()), e * r, r);
}

// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)
SENNIT_INLINE vf softplus(vf x) {
  const vf e = exp(-abs(x));
  // ln(1+e) for small e by its series, where 1+e would lose e
  const vf small = e * fnma(e, set(0.5f), set(1.0f)), large = log(set(1.0f) + e);
  return max(x, zero()) + select(less(e, set(1e-3f)), small, large);
}

SENNIT_INLINE vf tanh(vf x) {
  const vf a = abs(x), e = exp(set(-2.0f) * a);
  const vf big = (set(1.0f) - e) / (set(1.0f) + e);
  const vf x2 = x * x;
  const vf small = a * fma(x2, fma(x2, fma(x2, set(-17.0f / 315), set(2.0f / 15)), set(-1.0f / 3)), set(1.0f));
  const vf y = select(less(a, set(0.1f)), small, big);
  return select(less(x, zero()), -y, y);
}

// Calls body(i, n) for i = 0, kLanes, 2 kLanes, ... with n = lanes in use.
template <class Body>
SENNIT_INLINE void for_lanes(int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, int64_t{kLanes});
  if (i < count) body(i, count - i);
}

// Full vectors by load/store, the last one by load_part/store_part.
SENNIT_INLINE vf load_n(const float* p, int64_t n) { return n == kLanes ? load(p) : load_part(p, n); }
SENNIT_INLINE void store_n(float* p, vf a, int64_t n) {
  if (n == kLanes) store(p, a);
  else store_part(p, a, n);
}
SENNIT_INLINE void add_n(float* p, vf a, int64_t n) { store_n(p, load_n(p, n) + a, n); }
// To the lanes of a sum from `at`.
SENNIT_INLINE void add_lanes(const Sum& to, int64_t at, vf a, int64_t n) {
  store_n(to.at + at, to.holds ? load_n(to.at + at, n) + a : a, n);
}

// y += factor x
SENNIT_INLINE void add_scaled(float factor, const float* x, float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(y + i, fma(set(factor), load_n(x + i, k), load_n(y + i, k)), k); });
}

// a with zeros after the first n lanes: for sums over a last vector that is not full.
SENNIT_INLINE vf keep_n(vf a, int64_t n) {
  if (n == kLanes) return a;
  float p[kLanes];
  store(p, a);
  return load_part(p, n);
}

}  // namespace sennit::kernels::SENNIT_LEVEL
