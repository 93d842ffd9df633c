#pragma once
// Fourier transforms of 2 kLanes real sequences side by side: element i of a sequence is a complex number whose real
// part belongs to one vector of channels and whose imaginary part to another. Only products of spectra are wanted, so
// spectra stay in bit-reversed order. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

// turns[2 (half + j)] and the float after it: cosine and sine of -pi j / half, for half = 1, 2, 4, ... and j < half.
struct Complex {
  vf re, im;
};
SENNIT_INLINE Complex operator+(Complex a, Complex b) {
  return {a.re + b.re, a.im + b.im};
}
SENNIT_INLINE Complex operator-(Complex a, Complex b) {
  return {a.re - b.re, a.im - b.im};
}
SENNIT_INLINE Complex operator*(Complex a, Complex b) {
  return {fnma(a.im, b.im, a.re * b.re), fma(a.re, b.im, a.im * b.re)};
}
SENNIT_INLINE Complex conjugate(Complex a) {
  return {a.re, -a.im};
}
SENNIT_INLINE Complex times_i(Complex a) {
  return {-a.im, a.re};
}

SENNIT_INLINE Complex element(const float* z, int64_t i) {
  return {load(z + 2 * kLanes * i), load(z + (2 * i + 1) * kLanes)};
}
SENNIT_INLINE void set_element(float* z, int64_t i, Complex a) {
  store(z + 2 * kLanes * i, a.re);
  store(z + (2 * i + 1) * kLanes, a.im);
}
SENNIT_INLINE Complex turn(const float* turns, int64_t half, int64_t j) {
  const float* at = turns + 2 * (half + j);
  return {set(at[0]), set(at[1])};
}

namespace {

// In place, n a power of two of at least 2; two stages at a time.
[[maybe_unused]] void fft(float* z, int64_t n, const float* turns) {
  int64_t half = n / 2;
  for (; half >= 2; half /= 4) {
    const int64_t q = half / 2;
    for (int64_t base = 0; base < n; base += 2 * half)
      for (int64_t j = 0; j < q; ++j) {
        const int64_t at = base + j;
        const Complex w1 = turn(turns, half, j), w2 = turn(turns, q, j);
        const Complex a0 = element(z, at), a1 = element(z, at + q), a2 = element(z, at + half),
                      a3 = element(z, at + half + q);
        const Complex s0 = a0 + a2, s1 = a1 + a3, d0 = (a0 - a2) * w1, d1 = (a1 - a3) * w1;
        const Complex e1 = {d1.im, -d1.re};  // -i d1: the turn a quarter further
        set_element(z, at, s0 + s1);
        set_element(z, at + q, (s0 - s1) * w2);
        set_element(z, at + half, d0 + e1);
        set_element(z, at + half + q, (d0 - e1) * w2);
      }
  }
  if (half == 1)
    for (int64_t at = 0; at < n; at += 2) {
      const Complex a = element(z, at), b = element(z, at + 1);
      set_element(z, at, a + b);
      set_element(z, at + 1, a - b);
    }
}

// Back, times n.
[[maybe_unused]] void inverse_fft(float* z, int64_t n, const float* turns) {
  int64_t half = 1;
  if (__builtin_ctzll(static_cast<unsigned long long>(n)) % 2) {
    for (int64_t at = 0; at < n; at += 2) {
      const Complex a = element(z, at), b = element(z, at + 1);
      set_element(z, at, a + b);
      set_element(z, at + 1, a - b);
    }
    half = 2;
  }
  for (; half < n; half *= 4) {  // stages of half and of 2 half
    const int64_t q = half, wide = 2 * half;
    for (int64_t base = 0; base < n; base += 2 * wide)
      for (int64_t j = 0; j < q; ++j) {
        const int64_t at = base + j;
        const Complex w1 = conjugate(turn(turns, wide, j)), w2 = conjugate(turn(turns, q, j));
        const Complex b0 = element(z, at), b1 = element(z, at + q) * w2, b2 = element(z, at + wide),
                      b3 = element(z, at + wide + q) * w2;
        const Complex s0 = b0 + b1, s1 = b0 - b1, d0 = (b2 + b3) * w1, d1 = times_i((b2 - b3) * w1);
        set_element(z, at, s0 + d0);
        set_element(z, at + wide, s0 - d0);
        set_element(z, at + q, s1 + d1);
        set_element(z, at + wide + q, s1 - d1);
      }
  }
}

// z's spectra times f's, divided by n, channel by channel: the two of each complex number are told apart by what
// stands at the negative frequency, in bit-reversed order the mirror image within its run of 2^j.
[[maybe_unused]] void multiply_spectra(float* z, const float* f, int64_t n) {
  const vf share = set(1.0f / static_cast<float>(n)), quarter = set(0.25f / static_cast<float>(n));
  for (int64_t p = 0; p < 2; ++p) {
    const Complex a = element(z, p), b = element(f, p);
    set_element(z, p, {a.re * b.re * share, a.im * b.im * share});
  }
  for (int64_t run = 2; run < n; run *= 2)
    for (int64_t p = run; p < run + run / 2; ++p) {
      const int64_t mirror = 3 * run - 1 - p;
      const Complex zp = element(z, p), zm = conjugate(element(z, mirror)), fp = element(f, p),
                    fm = conjugate(element(f, mirror));
      // Twice the spectra of the first channels, and 2i times those of the second.
      const Complex first = (zp + zm) * (fp + fm), second = (zp - zm) * (fp - fm);
      // second is (2i)^2 = -4 times the product: i times it is -i second / 4.
      const Complex turned = {second.im, -second.re};
      const Complex sum = first + turned, difference = conjugate(first - turned);
      set_element(z, p, {sum.re * quarter, sum.im * quarter});
      set_element(z, mirror, {difference.re * quarter, difference.im * quarter});
    }
}

}  // namespace

}  // namespace sennit::kernels::SENNIT_LEVEL
