#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "base/parallel.h"
#include "base/rng.h"
#include "products/quantized.h"
#include "support/levels.h"

namespace sennit::quantized_product_test {

using io::BlockFormat;

std::vector<float> normals(int64_t n, uint64_t seed, double size = 1) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (float& v : x) v = static_cast<float>(size * rng.normal());
  return x;
}

io::StoredTensor weight(BlockFormat format, int64_t out, int64_t in) {
  const auto w = normals(out * in, static_cast<uint64_t>(out + in), 0.05);
  return io::encoded(io::stored(Tensor::of({out, in}, w)), format);
}

// x rounded to 8 bits, each 32 numbers by their largest, in double.
std::vector<double> rounded(const std::vector<float>& x) {
  std::vector<double> y(x.size());
  for (size_t b = 0; b < x.size(); b += 32) {
    double most = 0;
    for (size_t i = b; i < b + 32; ++i) most = std::fmax(most, std::fabs(double{x[i]}));
    for (size_t i = b; i < b + 32; ++i) y[i] = most > 0 ? std::nearbyint(x[i] * 127 / most) * most / 127 : 0;
  }
  return y;
}

class Products : public testing::TestWithParam<BlockFormat> {};

TEST_P(Products, AreThoseOfTheDecodedWeightAndTheRoundedRows) {
  const BlockFormat format = GetParam();
  const bool two_scales = io::layout_of(format).numbers == 256;  // rounded once more when packed
  for_each_level([&](IsaLevel) {
    for (const int64_t out : {1, 15, 16, 17, 50, 200})  // 200: streams of several panels, and some left over
      for (const int64_t in : {256, 768})
        for (const int64_t m : {1, 2, 6, 7, 13}) {
          const io::StoredTensor w = weight(format, out, in);
          const Tensor decoded = io::decoded(w);
          const QuantizedMatrix packed(w);
          const auto x = normals(m * in, 5), bias = normals(out, 6);
          const auto xr = rounded(x);
          std::vector<float> y(m * out + 4, 77);
          multiply(x.data(), m, packed, y.data(), bias.data());
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < out; ++j) {
              double sum = bias[j], size = std::fabs(bias[j]);
              for (int64_t p = 0; p < in; ++p) {
                const double term = xr[i * in + p] * decoded.data()[j * in + p];
                sum += term, size += std::fabs(term);
              }
              // Sums of codes and of minima are larger than their difference by a few times.
              ASSERT_NEAR(y[i * out + j], sum, size * (two_scales ? 4e-4 : 4e-6))
                  << out << " " << in << " " << m << " at " << i << " " << j;
            }
          for (int c = 0; c < 4; ++c) ASSERT_EQ(y[m * out + c], 77);
        }
  });
}

TEST_P(Products, BitsAreThoseOfTheRowAloneAtEveryLevelAndThreadCount) {
  const int64_t out = 211, in = 512, m = 15;
  const QuantizedMatrix packed(weight(GetParam(), out, in));
  const auto x = normals(m * in, 8);
  std::vector<float> first;
  const int threads = thread_count();
  for_each_level([&](IsaLevel) {
    for (const int t : {1, 3}) {
      set_thread_count(t);
      std::vector<float> y(m * out), alone(out);
      multiply(x.data(), m, packed, y.data());
      if (first.empty()) first = y;
      ASSERT_EQ(std::memcmp(y.data(), first.data(), y.size() * sizeof(float)), 0);
      for (int64_t i = 0; i < m; ++i) {
        multiply(x.data() + i * in, 1, packed, alone.data());
        ASSERT_EQ(std::memcmp(alone.data(), first.data() + i * out, out * sizeof(float)), 0) << i;
      }
    }
  });
  set_thread_count(threads);
}

float rounded_to_bf16(float x) {
  return to_float(to_bf16(x));
}

TEST_P(Products, PairedAreThoseOfNumbersRoundedToBf16) {
  for_each_level([&](IsaLevel) {
    for (const int64_t out : {1, 16, 33, 50})
      for (const int64_t m : {1, 7, 40}) {
        const int64_t in = 512;
        const QuantizedMatrix packed(weight(GetParam(), out, in));
        const auto x = normals(m * in, 5), bias = normals(out, 6);
        std::vector<float> y(m * out + 4, 77), row(in), alone(out);
        multiply_paired(x.data(), m, packed, y.data(), bias.data());
        for (int64_t j = 0; j < out; ++j) {
          packed.row(j, row.data());
          for (int64_t i = 0; i < m; ++i) {
            double sum = bias[j], size = std::fabs(bias[j]);
            for (int64_t p = 0; p < in; ++p) {
              const double term = double{rounded_to_bf16(x[i * in + p])} * rounded_to_bf16(row[p]);
              sum += term, size += std::fabs(term);
            }
            ASSERT_NEAR(y[i * out + j], sum, size * 2e-6) << out << " " << m << " at " << i << " " << j;
          }
        }
        for (int c = 0; c < 4; ++c) ASSERT_EQ(y[m * out + c], 77);
        multiply_paired(x.data() + (m - 1) * in, 1, packed, alone.data(), bias.data());
        ASSERT_EQ(std::memcmp(alone.data(), y.data() + (m - 1) * out, out * sizeof(float)), 0);
      }
  });
}

TEST_P(Products, RowsComeBackDecoded) {
  const io::StoredTensor w = weight(GetParam(), 21, 256);
  const Tensor decoded = io::decoded(w);
  const QuantizedMatrix packed(w);
  std::vector<float> row(256);
  for (int64_t i = 0; i < 21; ++i) {
    packed.row(i, row.data());
    float most = 0;
    for (int64_t c = 0; c < 256; ++c) most = std::max(most, std::fabs(decoded.data()[i * 256 + c]));
    for (int64_t c = 0; c < 256; ++c) ASSERT_NEAR(row[c], decoded.data()[i * 256 + c], most * 4e-3);
  }
}

TEST_P(Products, ExtremeRows) {
  const int64_t out = 16, in = 256;
  const QuantizedMatrix packed(weight(GetParam(), out, in));
  std::vector<float> y(out);
  for (const float value : {0.0f, 1e-40f, -1e30f}) {
    const std::vector<float> x(in, value);
    multiply(x.data(), 1, packed, y.data());
    for (const float v : y) {
      ASSERT_TRUE(std::isfinite(v));
      if (std::fabs(value) < 1e-30f) {
        ASSERT_EQ(v, 0);
      }
    }
  }
}

// Codes, f16 scales, and minima where no code stands for zero.
TEST_P(Products, TakeAboutTheBytesOfTheFile) {
  const std::map<BlockFormat, double> bits = {
      {BlockFormat::q8_0, 8.5}, {BlockFormat::q4_0, 4.5}, {BlockFormat::q4_1, 5}, {BlockFormat::q5_0, 5.5},
      {BlockFormat::q5_1, 6},   {BlockFormat::q4_k, 5},   {BlockFormat::q5_k, 6}, {BlockFormat::q6_k, 7}};
  const io::StoredTensor w = weight(GetParam(), 64, 512);
  EXPECT_EQ(8.0 * static_cast<double>(QuantizedMatrix(w).bytes()) / (64 * 512), bits.at(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Formats, Products,
                         testing::Values(BlockFormat::q8_0, BlockFormat::q4_0, BlockFormat::q4_1, BlockFormat::q5_0,
                                         BlockFormat::q5_1, BlockFormat::q4_k, BlockFormat::q5_k, BlockFormat::q6_k),
                         [](const auto& i) { return std::string(io::layout_of(i.param).name); });

}  // namespace sennit::quantized_product_test
