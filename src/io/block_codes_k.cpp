#include <cmath>

#include "io/block_codes.h"

namespace sennit::io::block_codes {
namespace {

constexpr int kPacked = 12;  // bytes of eight 6-bit scales and eight 6-bit minima

void pack_pairs(const ScalePair (&pairs)[8], std::byte* s) {
  for (int j = 0; j < 4; ++j) {
    s[j] = static_cast<std::byte>(pairs[j].scale | pairs[j + 4].scale >> 4 << 6);
    s[j + 4] = static_cast<std::byte>(pairs[j].minimum | pairs[j + 4].minimum >> 4 << 6);
    s[j + 8] = static_cast<std::byte>((pairs[j + 4].scale & 15) | (pairs[j + 4].minimum & 15) << 4);
  }
}

// q4_k: d, dmin, pairs, fours. q5_k: d, dmin, pairs, 32 bytes of fifths, fours. Part j of 32 numbers:
// x = d scale_j q - dmin minimum_j; its fours are the low (j even) or high halves of bytes 32 (j / 2) and on, its
// fifths bit j of the 32 bytes.
template <int kBits>
struct Parts {
  static constexpr int kFifths = 4 + kPacked, kFours = kFifths + (kBits == 5 ? 32 : 0), kHigh = (1 << kBits) - 1;

  static void decode(const std::byte* b, float* x) {
    const float d = read_f16(b), dmin = read_f16(b + 2);
    for (int j = 0; j < 8; ++j) {
      const ScalePair pair = unpack_pair(b + 4, j);
      const float scale = d * static_cast<float>(pair.scale), minimum = dmin * static_cast<float>(pair.minimum);
      for (int i = 0; i < 32; ++i) {
        int q = byte_at(b, kFours + j / 2 * 32 + i) >> (j % 2 * 4) & 15;
        if constexpr (kBits == 5) q |= (byte_at(b, kFifths + i) >> j & 1) << 4;
        x[32 * j + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  }

  static void encode(const float* x, const float* w, std::byte* b) {
    Affine best[8];
    float most_scale = 0, most_minimum = 0;
    for (int j = 0; j < 8; ++j) {
      best[j] = best_affine(x + 32 * j, w ? w + 32 * j : nullptr, 32, kHigh, true);
      most_scale = std::max(most_scale, best[j].scale), most_minimum = std::max(most_minimum, -best[j].minimum);
    }
    const float d = write_f16(b, most_scale / 63), dmin = write_f16(b + 2, most_minimum / 63);
    ScalePair pairs[8];
    for (int j = 0; j < 8; ++j) pairs[j] = {level(best[j].scale, d, 0, 63), level(-best[j].minimum, dmin, 0, 63)};
    pack_pairs(pairs, b + 4);
    std::memset(b + kFifths, 0, kFours + 128 - kFifths);
    for (int j = 0; j < 8; ++j) {
      const float scale = d * static_cast<float>(pairs[j].scale), minimum = dmin * static_cast<float>(pairs[j].minimum);
      for (int i = 0; i < 32; ++i) {
        const int q = level(x[32 * j + i] + minimum, scale, 0, kHigh);
        b[kFours + j / 2 * 32 + i] |= static_cast<std::byte>((q & 15) << (j % 2 * 4));
        if constexpr (kBits == 5) b[kFifths + i] |= static_cast<std::byte>((q >> 4) << j);
      }
    }
  }
};

// q6_k: 128 bytes of fours, 64 of upper pairs of bits, 16 signed scales, d. Within each half of 128 numbers, number
// 32 g + i has its four bits in byte 32 (g % 2) + i of the half's 64, low for g < 2, and its two in bits 2g of byte i
// of the half's 32. x = d scale (q - 32), a scale for each 16 numbers.
constexpr int kSixUpper = 128, kSixScales = 192, kSixD = 208;

void decode_q6_k(const std::byte* b, float* x) {
  const float d = read_f16(b + kSixD);
  for (int n = 0; n < 256; ++n) {
    const int half = n / 128, g = n % 128 / 32, i = n % 32;
    const int low = byte_at(b, 64 * half + 32 * (g % 2) + i) >> (g / 2 * 4) & 15;
    const int upper = byte_at(b, kSixUpper + 32 * half + i) >> (2 * g) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(b[kSixScales + n / 16]));
    x[n] = scale * static_cast<float>((low | upper << 4) - 32);
  }
}

void encode_q6_k(const float* x, const float* w, std::byte* b) {
  float scales[16], largest = 0;
  for (int j = 0; j < 16; ++j) {
    scales[j] = best_scale(x + 16 * j, w ? w + 16 * j : nullptr, 16, -32, 31);
    if (std::fabs(scales[j]) > std::fabs(largest)) largest = scales[j];
  }
  std::memset(b, 0, kSixD);
  const float d = write_f16(b + kSixD, -largest / 128);
  int rounded[16];
  for (int j = 0; j < 16; ++j) {
    rounded[j] = level(scales[j], d, -128, 127);
    b[kSixScales + j] = static_cast<std::byte>(rounded[j]);
  }
  for (int n = 0; n < 256; ++n) {
    const int half = n / 128, g = n % 128 / 32, i = n % 32;
    const int q = level(x[n], d * static_cast<float>(rounded[n / 16]), -32, 31) + 32;
    b[64 * half + 32 * (g % 2) + i] |= static_cast<std::byte>((q & 15) << (g / 2 * 4));
    b[kSixUpper + 32 * half + i] |= static_cast<std::byte>((q >> 4) << (2 * g));
  }
}

}  // namespace

// Pair j < 4: the low six bits of bytes j and j + 4. Pair j >= 4: four bits each in byte j + 4, and their upper two in
// the upper bits of bytes j - 4 and j.
ScalePair unpack_pair(const std::byte* s, int j) {
  if (j < 4) return {byte_at(s, j) & 63, byte_at(s, j + 4) & 63};
  return {(byte_at(s, j + 4) & 15) | (byte_at(s, j - 4) >> 6) << 4, byte_at(s, j + 4) >> 4 | (byte_at(s, j) >> 6) << 4};
}

const Code q4_k{Parts<4>::decode, Parts<4>::encode};
const Code q5_k{Parts<5>::decode, Parts<5>::encode};
const Code q6_k{decode_q6_k, encode_q6_k};

}  // namespace sennit::io::block_codes
