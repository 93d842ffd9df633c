#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/rng.h"
#include "kernels/amx_tiles.h"
#include "support/emulated_tiles.h"
#include "support/levels.h"
#include "tensor/dtype.h"

namespace sennit::gemm_test {

using kernels::kPanelColumns;
using kernels::PanelKernels;
using kernels::PanelProduct;

std::vector<float> random_floats(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (auto& v : x) v = static_cast<float>(rng.normal());
  return x;
}

float pair_of(float even, float odd) {
  return std::bit_cast<float>(uint32_t{to_bf16(even).bits} | uint32_t{to_bf16(odd).bits} << 16);
}
int64_t padded_depth(int64_t k) {
  return (k + 31) / 32 * 16;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

// Unit u of line i of a factor whose lines run along k.
float unit_of(const std::vector<float>& x, int64_t k, int64_t i, int64_t u, bool paired) {
  const auto at = [&](int64_t p) { return p < k ? x[i * k + p] : 0; };
  return paired ? pair_of(at(2 * u), at(2 * u + 1)) : at(u);
}

// Panels as the headers describe them, by plain loops: of a for AMX when `tiles`, else of b.
std::vector<float> naive_panel(const std::vector<float>& x, int64_t width, int64_t k, bool paired, bool tiles) {
  const int64_t depth = paired ? padded_depth(k) : k, out_width = tiles ? width : kPanelColumns;
  std::vector<float> panel(depth * out_width, 0);
  for (int64_t u = 0; u < depth; ++u)
    for (int64_t i = 0; i < width; ++i)
      panel[tiles ? (u / 16 * width + i) * 16 + u % 16 : u * out_width + i] = unit_of(x, k, i, u, paired);
  return panel;
}

std::vector<float> flipped(const std::vector<float>& x, int64_t rows, int64_t cols) {
  std::vector<float> y(x.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) y[j * rows + i] = x[i * cols + j];
  return y;
}

TEST(Gemm, PanelsOfBHaveOneFormAtEveryLevel) {
  for_each_level([](IsaLevel) {
    for (const bool paired : {false, true})
      for (const int64_t width : {1, 7, 16, 17, 31, 32})
        for (const int64_t k : {0, 1, 2, 15, 16, 17, 31, 32, 33, 70}) {
          const auto x = random_floats(width * k, 1), want = naive_panel(x, width, k, paired, false);
          const auto turned = flipped(x, width, k);
          const PanelKernels& kernel = paired ? *kernels::gemm().bf16.timed : *kernels::gemm().f32;
          for (const bool k_major : {false, true}) {
            std::vector<float> got(want.size() + 1, 5);
            kernel.pack_b(k_major ? turned.data() : x.data(), k_major ? width : k, k_major, width, k, got.data());
            ASSERT_EQ(got.back(), 5) << "wrote past the panel";
            got.pop_back();
            ASSERT_TRUE(same_bits(got, want)) << "width " << width << " k " << k << " k_major " << k_major;
          }
        }
  });
}

#if defined(__x86_64__)
TEST(Gemm, PanelsOfAForTiles) {
  if (!isa_level_refusal(IsaLevel::avx512).empty()) GTEST_SKIP() << isa_level_refusal(IsaLevel::avx512);
  for (const int64_t width : {1, 15, 16, 17, 32})
    for (const int64_t k : {1, 2, 31, 32, 33, 70}) {
      const auto x = random_floats(width * k, 2), want = naive_panel(x, width, k, true, true);
      const auto turned = flipped(x, width, k);
      for (const bool k_major : {false, true}) {
        std::vector<float> got(want.size(), 5);
        kernels::amx::gemm_table.bf16.timed->pack_a(k_major ? turned.data() : x.data(), k_major ? width : k, k_major,
                                                    width, k, got.data());
        ASSERT_TRUE(same_bits(got, want)) << "width " << width << " k " << k << " k_major " << k_major;
      }
    }
}
#endif

// The ways to a product on tiles.
constexpr auto kWide = [](EmulatedTiles& unit, const PanelProduct& p) { kernels::TileProduct<EmulatedTiles, true>(unit, p).run(); };
constexpr auto kNarrow = [](EmulatedTiles& unit, const PanelProduct& p) { kernels::TileProduct<EmulatedTiles, false>(unit, p).run(); };
// A product on emulated tiles, from factors whose lines run along k.
struct TileCase {
  int64_t m, n, k;
  std::vector<float> a = random_floats(m * k, 3), b = random_floats(n * k, 4), c = random_floats(m * n, 5),
                     bias = random_floats(n, 6);
  static constexpr int64_t kSpare = 3;  // canaries between the rows of c

  template <class Way>
  std::vector<float> run(const Way& multiply, int64_t first, int64_t rows, bool accumulate, bool biased) const {
    const int64_t depth = padded_depth(k), stride = n + kSpare;
    std::vector<float> a_panels, b_panels, out(rows * stride, 7);
    for (int64_t i = 0; i < rows; i += 32) append(a_panels, a, first + i, std::min<int64_t>(32, rows - i), true);
    for (int64_t j = 0; j < n; j += 32) append(b_panels, b, j, std::min<int64_t>(32, n - j), false);
    for (int64_t i = 0; i < rows && accumulate; ++i) std::copy_n(&c[(first + i) * n], n, &out[i * stride]);
    const PanelProduct product{.a = a_panels.data(),
                               .b = b_panels.data(),
                               .m = rows,
                               .n = n,
                               .a_rows = 32,
                               .depth = depth,
                               .c = out.data(),
                               .c_stride = stride,
                               .accumulate = accumulate,
                               .bias = biased ? bias.data() : nullptr};
    EmulatedTiles unit;
    multiply(unit, product);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = n; j < stride; ++j) EXPECT_EQ(out[i * stride + j], 7) << "wrote beyond row " << i;
    return out;
  }
  void append(std::vector<float>& panels, const std::vector<float>& x, int64_t first, int64_t width, bool tiles) const {
    const std::vector<float> part(x.begin() + first * k, x.begin() + (first + width) * k);
    const auto panel = naive_panel(part, width, k, true, tiles);
    panels.insert(panels.end(), panel.begin(), panel.end());
  }
};

TEST(Gemm, TilesMultiplyAtEveryShape) {
  for (const int64_t m : {1, 4, 15, 16, 17, 31, 32, 33, 50})
    for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 64, 75})
      for (const int64_t k : {0, 1, 31, 32, 33, 2100})
        for (const bool add : {false, true}) {
          if (k > 1000 && (m % 16 != 1 || n % 16 != 1)) continue;
          const TileCase t{m, n, k};
          const auto got = t.run(kWide, 0, m, add, add);
          ASSERT_TRUE(same_bits(got, t.run(kNarrow, 0, m, add, add))) << "wide and narrow differ";
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
              double want = add ? double{t.c[i * n + j]} + t.bias[j] : 0, size = std::abs(want);
              for (int64_t p = 0; p < k; ++p) {
                const double term = double{to_float(to_bf16(t.a[i * k + p]))} * to_float(to_bf16(t.b[j * k + p]));
                want += term, size += std::abs(term);
              }
              ASSERT_NEAR(got[i * (n + t.kSpare) + j], want, static_cast<double>(k / 32 + 20) * 0x1p-24 * (size + 4))
                  << m << " " << n << " " << k << " at " << i << " " << j;
            }
        }
}

TEST(Gemm, TilesGiveARowTheSameBitsWhereverItStands) {
  const TileCase t{53, 47, 100};
  const auto whole = t.run(kWide, 0, t.m, true, true);
  const int64_t stride = t.n + t.kSpare;
  for (int64_t first = 0; first < t.m; first += 7)
    for (const int64_t rows : {1, 2, 16, 20})
      if (first + rows <= t.m) {
        const auto part = t.run(kWide, first, rows, true, true);
        ASSERT_EQ(std::memcmp(part.data(), &whole[first * stride], 4 * part.size()), 0) << first << " " << rows;
      }
}

}  // namespace sennit::gemm_test
