#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tensor/dtype.h"

// The quantized block formats one by one, for blocks.cpp: each decodes or encodes one block. `importance` may be null.
namespace sennit::io::block_codes {

struct Code {
  void (*decode)(const std::byte* block, float* x);
  void (*encode)(const float* x, const float* importance, std::byte* block);
};

extern const Code q8_0, q4_0, q4_1, q5_0, q5_1;  // blocks of 32 numbers: block_codes_32.cpp
extern const Code q4_k, q5_k, q6_k;              // of 256: block_codes_k.cpp

inline float read_f16(const std::byte* p) {
  f16 h;
  std::memcpy(&h.bits, p, 2);
  return to_float(h);
}
// Writes x, held to the range of f16, and returns what a reader will see.
inline float write_f16(std::byte* p, float x) {
  const f16 h = to_f16(std::clamp(x, -65504.0f, 65504.0f));
  std::memcpy(p, &h.bits, 2);
  return to_float(h);
}
inline int byte_at(const std::byte* p, int64_t i) {
  return std::to_integer<int>(p[i]);
}

// Scale and minimum j of the eight that q4_k and q5_k pack into 12 bytes, six bits each.
struct ScalePair {
  int scale, minimum;
};
ScalePair unpack_pair(const std::byte* packed, int j);

// To the nearest whole number, ties to even, for |x| < 2^22.
inline float nearest(float x) {
  return (x + 0x1.8p23f) - 0x1.8p23f;
}
// The whole number in [low, high] nearest to x / scale; 0 for a scale of 0.
inline int level(float x, float scale, int low, int high) {
  if (scale == 0) return std::clamp(0, low, high);
  return static_cast<int>(nearest(std::clamp(x / scale, static_cast<float>(low), static_cast<float>(high))));
}

// The scale d, of either sign, with the least sum of w (x - d q)^2 over whole q in [low, high], among some that put the
// largest number near the end of the range.
float best_scale(const float* x, const float* w, int n, int low, int high);

// The same for w (x - (d q + m))^2 with q in [0, high], d >= 0 and, when `below` is set, m <= 0.
struct Affine {
  float scale, minimum;
};
Affine best_affine(const float* x, const float* w, int n, int high, bool below);

}  // namespace sennit::io::block_codes
