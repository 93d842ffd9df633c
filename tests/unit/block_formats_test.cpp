#include "io/blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "tensor/dtype.h"

namespace sennit::io::block_formats_test {

using Bytes = std::vector<uint8_t>;

double half(const Bytes& b, size_t at) {
  const int u = b[at] | b[at + 1] << 8, e = u >> 10 & 31, f = u & 1023;
  const double magnitude = e ? std::ldexp(1024 + f, e - 25) : std::ldexp(f, -24);
  return u & 0x8000 ? -magnitude : magnitude;
}
int bits(const Bytes& b, size_t at, int from, int count) {
  return b[at] >> from & ((1 << count) - 1);
}

// Number n of a block, as the table of formats says it.
double number(BlockFormat format, const Bytes& b, int n) {
  const int low = n % 32 % 16, high = n % 32 / 16 * 4;  // of the formats of 32
  const auto fifth = [&](size_t at) { return bits(b, at + n / 8, n % 8, 1) << 4; };
  switch (format) {
    case BlockFormat::q8_0:
      return half(b, 0) * static_cast<int8_t>(b[2 + n]);
    case BlockFormat::q4_0:
      return half(b, 0) * (bits(b, 2 + low, high, 4) - 8);
    case BlockFormat::q4_1:
      return half(b, 0) * bits(b, 4 + low, high, 4) + half(b, 2);
    case BlockFormat::q5_0:
      return half(b, 0) * ((bits(b, 6 + low, high, 4) | fifth(2)) - 16);
    case BlockFormat::q5_1:
      return half(b, 0) * (bits(b, 8 + low, high, 4) | fifth(4)) + half(b, 2);
    case BlockFormat::q4_k:
    case BlockFormat::q5_k: {
      const int j = n / 32;
      const int scale = j < 4 ? bits(b, 4 + j, 0, 6) : bits(b, 8 + j, 0, 4) + 16 * bits(b, j, 6, 2);
      const int minimum = j < 4 ? bits(b, 8 + j, 0, 6) : bits(b, 8 + j, 4, 4) + 16 * bits(b, 4 + j, 6, 2);
      const bool five = format == BlockFormat::q5_k;
      int q = bits(b, (five ? 48 : 16) + n / 64 * 32 + n % 32, n / 32 % 2 * 4, 4);
      if (five) q += 16 * bits(b, 16 + n % 32, j, 1);
      return half(b, 0) * scale * q - half(b, 2) * minimum;
    }
    case BlockFormat::q6_k: {
      const int h = n / 128, g = n / 32 % 4, i = n % 32;
      const int q = bits(b, h * 64 + g % 2 * 32 + i, g / 2 * 4, 4) + 16 * bits(b, 128 + h * 32 + i, g * 2, 2);
      return half(b, 208) * static_cast<int8_t>(b[192 + n / 16]) * (q - 32);
    }
    default:
      return NAN;
  }
}

// Random bytes whose scales are finite.
Bytes random_block(BlockFormat format, Rng& rng) {
  Bytes b(layout_of(format).bytes);
  for (auto& x : b) x = static_cast<uint8_t>(rng.bits());
  for (const size_t at : format == BlockFormat::q6_k ? std::vector<size_t>{209} : std::vector<size_t>{1, 3})
    b[at] &= 0xbf;
  return b;
}

class Quantized : public testing::TestWithParam<BlockFormat> {};

TEST_P(Quantized, DecodesAsTheTableSays) {
  Rng rng(3);
  const int64_t n = layout_of(GetParam()).numbers;
  for (int round = 0; round < 50; ++round) {
    const Bytes b = random_block(GetParam(), rng);
    std::vector<float> x(n + 1, 7);
    decode_row(GetParam(), reinterpret_cast<const std::byte*>(b.data()), n, x.data());
    for (int i = 0; i < n; ++i) {
      const double expected = number(GetParam(), b, i);
      ASSERT_NEAR(x[i], expected, 1e-6 * (std::fabs(expected) + std::fabs(half(b, 2)) * 64)) << i;
    }
    EXPECT_EQ(x[n], 7);
  }
}

std::vector<float> normal_row(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(0.02 * rng.normal());
  return x;
}

struct Trip {
  Bytes blocks;
  std::vector<float> back;
};
Trip trip(BlockFormat format, const std::vector<float>& x, const float* importance = nullptr) {
  const int64_t n = std::ssize(x), bytes = row_bytes(format, n);
  Trip t{Bytes(bytes + 3, 0xee), std::vector<float>(n)};
  encode_row(format, x.data(), n, reinterpret_cast<std::byte*>(t.blocks.data()), importance);
  for (int64_t i = bytes; i < bytes + 3; ++i) EXPECT_EQ(t.blocks[i], 0xee);
  decode_row(format, reinterpret_cast<const std::byte*>(t.blocks.data()), n, t.back.data());
  return t;
}

double relative_error(const std::vector<float>& x, const std::vector<float>& y, const float* w = nullptr) {
  double off = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double k = w ? w[i] : 1;
    off += k * (x[i] - y[i]) * (x[i] - y[i]), size += k * x[i] * x[i];
  }
  return std::sqrt(off / size);
}

// The error of the plain way: for 32 numbers, a scale from the extremes alone and rounding to nearest, nothing searched
// and the scale not even rounded.
double plain_error(BlockFormat format, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  const bool affine = format != BlockFormat::q4_0 && format != BlockFormat::q5_0 && format != BlockFormat::q6_k &&
                      format != BlockFormat::q8_0;
  const int levels = format == BlockFormat::q8_0                                                                 ? 255
                     : format == BlockFormat::q6_k                                                               ? 63
                     : format == BlockFormat::q4_0 || format == BlockFormat::q4_1 || format == BlockFormat::q4_k ? 15
                                                                                                                 : 31;
  for (size_t b = 0; b < x.size(); b += 32) {
    float low = 0, high = 0;
    for (size_t i = b; i < b + 32; ++i) low = std::min(low, x[i]), high = std::max(high, x[i]);
    if (!affine) high = std::max(-low, high), low = -high;
    const float d = (high - low) / static_cast<float>(levels);
    for (size_t i = b; i < b + 32; ++i) y[i] = std::nearbyint((x[i] - low) / d) * d + low;
  }
  return relative_error(x, y);
}

TEST_P(Quantized, SearchBeatsPlainRounding) {
  const std::vector<float> x = normal_row(256 * 40, 9);
  const double found = relative_error(x, trip(GetParam(), x).back), plain = plain_error(GetParam(), x);
  EXPECT_LT(found, plain * (GetParam() == BlockFormat::q8_0 ? 1.02 : 0.99)) << layout_of(GetParam()).name;
}

TEST_P(Quantized, WhatWasDecodedIsEncodedAgainNearly) {
  const std::vector<float> x = normal_row(256 * 8, 4), once = trip(GetParam(), x).back,
                           twice = trip(GetParam(), once).back;
  EXPECT_LT(relative_error(once, twice), 0.35 * relative_error(x, once)) << layout_of(GetParam()).name;
}

TEST_P(Quantized, ZerosConstantsAndExtremes) {
  const int64_t n = 512;
  for (const float value : {0.0f, 1.0f, -3.5f, 1e-9f, 1e30f}) {
    const std::vector<float> x(n, value);
    for (const float y : trip(GetParam(), x).back) {
      ASSERT_TRUE(std::isfinite(y)) << value;
      if (value == 0) {
        ASSERT_EQ(y, 0);
      }
      if (std::fabs(value) > 0.5 && std::fabs(value) < 10) {
        ASSERT_NEAR(y, value, std::fabs(value) * 0.02);
      }
    }
  }
  std::vector<float> one(n, 0);
  one[77] = -0.9f;
  const auto back = trip(GetParam(), one).back;
  EXPECT_NEAR(back[77], -0.9f, 0.01);
  EXPECT_EQ(back[300], 0);
}

TEST_P(Quantized, ImportanceMovesTheErrorElsewhere) {
  if (GetParam() == BlockFormat::q8_0) GTEST_SKIP() << "nothing is searched";
  const std::vector<float> x = normal_row(256 * 20, 6);
  std::vector<float> w(x.size());
  Rng rng(8);
  for (float& k : w) k = static_cast<float>(std::exp(3 * rng.normal()));
  const double with = relative_error(x, trip(GetParam(), x, w.data()).back, w.data());
  const double without = relative_error(x, trip(GetParam(), x).back, w.data());
  EXPECT_LT(with, 0.97 * without);
}

INSTANTIATE_TEST_SUITE_P(Formats, Quantized,
                         testing::Values(BlockFormat::q8_0, BlockFormat::q4_0, BlockFormat::q4_1, BlockFormat::q5_0,
                                         BlockFormat::q5_1, BlockFormat::q4_k, BlockFormat::q5_k, BlockFormat::q6_k),
                         [](const auto& i) { return std::string(layout_of(i.param).name); });

TEST(Blocks, FloatsKeepTheirBits) {
  Tensor half_floats({3, 5}, DType::f16), brain({3, 5}, DType::bf16);
  for (int i = 0; i < 15; ++i)
    half_floats.data<f16>()[i].bits = static_cast<uint16_t>(4097 * i),
    brain.data<bf16>()[i].bits = static_cast<uint16_t>(4001 * i);
  for (const Tensor& t : {half_floats, brain}) {
    const StoredTensor wide = encoded(stored(t), BlockFormat::f32), back = encoded(wide, block_format_of(t.dtype()));
    ASSERT_EQ(back.bytes.size(), static_cast<size_t>(t.bytes()));
    EXPECT_EQ(std::memcmp(back.bytes.data(), t.raw(), t.bytes()), 0);
  }
}

TEST(Blocks, NamesAndNumbersGoRound) {
  for (const BlockFormat f : block_formats()) {
    EXPECT_EQ(parse_block_format(layout_of(f).name), f);
    EXPECT_EQ(block_format_of_id(layout_of(f).id), f);
  }
  EXPECT_FALSE(parse_block_format("q9_z"));
  EXPECT_FALSE(block_format_of_id(4));
}

}  // namespace sennit::io::block_formats_test
