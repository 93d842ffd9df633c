#include "io/block_affine.h"

#include <cstring>

#include "base/error.h"
#include "io/block_codes.h"

namespace sennit::io {
namespace {

using namespace block_codes;

void same_for_both(AffineBlock& a, float scale, float minimum) {
  for (int half = 0; half < 2; ++half) a.scale[half] = scale, a.minimum[half] = minimum;
}

// Eight codes at a time.
constexpr uint64_t kOnes = 0x0101010101010101;
uint64_t eight(const std::byte* in) {
  uint64_t x;
  std::memcpy(&x, in, 8);
  return x;
}
void put_eight(uint64_t x, uint8_t* q) { std::memcpy(q, &x, 8); }

void fours(const std::byte* in, AffineBlock& a) {
  for (int i = 0; i < 16; i += 8) {
    put_eight(eight(in + i) & 15 * kOnes, a.q + i);
    put_eight(eight(in + i) >> 4 & 15 * kOnes, a.q + 16 + i);
  }
}
void fifths(const std::byte* in, AffineBlock& a) {
  for (int i = 0; i < 32; ++i) a.q[i] = static_cast<uint8_t>(a.q[i] | (byte_at(in, i / 8) >> (i % 8) & 1) << 4);
}

void block_of_32(BlockFormat format, const std::byte* b, AffineBlock& a) {
  const float d = read_f16(b);
  switch (format) {
    case BlockFormat::q8_0:
      for (int i = 0; i < 32; i += 8) put_eight(eight(b + 2 + i) ^ 128 * kOnes, a.q + i);
      return same_for_both(a, d, 128 * d);
    case BlockFormat::q4_0:
      fours(b + 2, a);
      return same_for_both(a, d, 8 * d);
    case BlockFormat::q4_1:
      fours(b + 4, a);
      return same_for_both(a, d, -read_f16(b + 2));
    case BlockFormat::q5_0:
      fours(b + 6, a), fifths(b + 2, a);
      return same_for_both(a, d, 16 * d);
    default:
      fours(b + 8, a), fifths(b + 4, a);
      return same_for_both(a, d, -read_f16(b + 2));
  }
}

// q4_k and q5_k.
void block_of_pairs(const std::byte* b, bool five, AffineBlock* out) {
  const float d = read_f16(b), dmin = read_f16(b + 2);
  for (int j = 0; j < 8; ++j) {
    const ScalePair pair = unpack_pair(b + 4, j);
    same_for_both(out[j], d * static_cast<float>(pair.scale), dmin * static_cast<float>(pair.minimum));
    for (int i = 0; i < 32; i += 8) {
      uint64_t q = eight(b + (five ? 48 : 16) + j / 2 * 32 + i) >> (j % 2 * 4) & 15 * kOnes;
      if (five) q |= (eight(b + 16 + i) >> j & kOnes) << 4;
      put_eight(q, out[j].q + i);
    }
  }
}

void block_of_sixes(const std::byte* b, AffineBlock* out) {
  const float d = read_f16(b + 208);
  for (int j = 0; j < 8; ++j) {
    const int half = j / 4, g = j % 4;
    for (int i = 0; i < 32; i += 8) {
      const uint64_t low = eight(b + 64 * half + 32 * (g % 2) + i) >> (g / 2 * 4) & 15 * kOnes,
                     upper = eight(b + 128 + 32 * half + i) >> (2 * g) & 3 * kOnes;
      put_eight(low | upper << 4, out[j].q + i);
    }
    for (int part = 0; part < 2; ++part) {
      out[j].scale[part] = d * static_cast<float>(static_cast<int8_t>(b[192 + 2 * j + part]));
      out[j].minimum[part] = 32 * out[j].scale[part];
    }
  }
}

}  // namespace

void affine_blocks(BlockFormat format, const std::byte* blocks, int64_t n, AffineBlock* out) {
  SENNIT_CHECK(is_quantized(format), "{}", layout_of(format).name);
  const BlockLayout& layout = layout_of(format);
  for (int64_t i = 0; i < n; i += layout.numbers, blocks += layout.bytes, out += layout.numbers / 32) {
    if (format == BlockFormat::q6_k)
      block_of_sixes(blocks, out);
    else if (layout.numbers == 256)
      block_of_pairs(blocks, format == BlockFormat::q5_k, out);
    else
      block_of_32(format, blocks, *out);
  }
}

}  // namespace sennit::io
