#include <cmath>

#include "io/block_codes.h"

namespace sennit::io::block_codes {
namespace {

constexpr int kHalf = 16;  // byte i of the fours holds number i in its low half and number i + 16 in its high half

void put_fours(const int (&q)[32], std::byte* out) {
  for (int i = 0; i < kHalf; ++i) out[i] = static_cast<std::byte>((q[i] & 15) | (q[i + kHalf] & 15) << 4);
}
int four_at(const std::byte* in, int i) {
  return i < kHalf ? byte_at(in, i) & 15 : byte_at(in, i - kHalf) >> 4;
}

// The fifth bits of 32 numbers, number i at bit i.
void put_fifths(const int (&q)[32], std::byte* out) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(q[i] >> 4 & 1) << i;
  std::memcpy(out, &bits, 4);
}
int five_at(const std::byte* fifths, const std::byte* fours, int i) {
  uint32_t bits;
  std::memcpy(&bits, fifths, 4);
  return four_at(fours, i) | static_cast<int>(bits >> i & 1) << 4;
}

void decode_q8_0(const std::byte* b, float* x) {
  const float d = read_f16(b);
  for (int i = 0; i < 32; ++i) x[i] = d * static_cast<float>(static_cast<int8_t>(b[2 + i]));
}
void encode_q8_0(const float* x, const float*, std::byte* b) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float d = write_f16(b, largest / 127);
  for (int i = 0; i < 32; ++i) b[2 + i] = static_cast<std::byte>(level(x[i], d, -127, 127));
}

// x = d (q - offset): d, [fifths,] fours.
template <int kBits>
void decode_symmetric(const std::byte* b, float* x) {
  const float d = read_f16(b);
  for (int i = 0; i < 32; ++i) {
    if constexpr (kBits == 4)
      x[i] = d * static_cast<float>(four_at(b + 2, i) - 8);
    else
      x[i] = d * static_cast<float>(five_at(b + 2, b + 6, i) - 16);
  }
}
template <int kBits>
void encode_symmetric(const float* x, const float* w, std::byte* b) {
  constexpr int kOffset = 1 << (kBits - 1);
  const float d = write_f16(b, best_scale(x, w, 32, -kOffset, kOffset - 1));
  int q[32];
  for (int i = 0; i < 32; ++i) q[i] = level(x[i], d, -kOffset, kOffset - 1) + kOffset;
  if constexpr (kBits == 5) put_fifths(q, b + 2);
  put_fours(q, b + (kBits == 4 ? 2 : 6));
}

// x = d q + m: d, m, [fifths,] fours.
template <int kBits>
void decode_affine(const std::byte* b, float* x) {
  const float d = read_f16(b), m = read_f16(b + 2);
  for (int i = 0; i < 32; ++i) {
    const int q = kBits == 4 ? four_at(b + 4, i) : five_at(b + 4, b + 8, i);
    x[i] = d * static_cast<float>(q) + m;
  }
}
template <int kBits>
void encode_affine(const float* x, const float* w, std::byte* b) {
  constexpr int kHigh = (1 << kBits) - 1;
  const Affine best = best_affine(x, w, 32, kHigh, false);
  const float d = write_f16(b, best.scale), m = write_f16(b + 2, best.minimum);
  int q[32];
  for (int i = 0; i < 32; ++i) q[i] = level(x[i] - m, d, 0, kHigh);
  if constexpr (kBits == 5) put_fifths(q, b + 4);
  put_fours(q, b + (kBits == 4 ? 4 : 8));
}

}  // namespace

const Code q8_0{decode_q8_0, encode_q8_0};
const Code q4_0{decode_symmetric<4>, encode_symmetric<4>};
const Code q5_0{decode_symmetric<5>, encode_symmetric<5>};
const Code q4_1{decode_affine<4>, encode_affine<4>};
const Code q5_1{decode_affine<5>, encode_affine<5>};

}  // namespace sennit::io::block_codes
