#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/gemm.h"
#include "kernels/int8_rows.h"
#include "products/int8.h"
#include "products/product.h"
#include "support/buffers.h"
#include "support/emulated_tiles.h"
#include "support/levels.h"

namespace sennit::int8_product_test {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

// A row as whole numbers and their scale, by the header's words.
struct Rounded {
  std::vector<int> q;
  float scale = 0;

  explicit Rounded(const float* x, int64_t k) : q(static_cast<size_t>(k), 0) {
    float most = 0;
    for (int64_t i = 0; i < k; ++i) {
      if (!std::isfinite(x[i])) scale = kNan;
      most = std::fmax(most, std::fabs(x[i]));
    }
    if (scale != 0 || most <= 1e-30f) return;
    scale = most / 127;
    const float by = 127 / most;
    for (int64_t i = 0; i < k; ++i) q[i] = static_cast<int>(std::nearbyint(x[i] * by));
  }
};

std::vector<Rounded> rounded(const float* x, int64_t rows, int64_t k) {
  std::vector<Rounded> all;
  for (int64_t i = 0; i < rows; ++i) all.emplace_back(x + i * k, k);
  return all;
}

// How sums of products may be taken: as the header says, or in ways that go wrong.
enum class Way { exact, saturating_pairs, float_sums, fused };

int64_t saturated(int64_t pair) {
  return std::min<int64_t>(32767, std::max<int64_t>(-32768, pair));
}

float element(const Rounded& x, const Rounded& w, float bias, Way way) {
  int64_t sum = 0;
  float inexact = 0;
  const size_t k = x.q.size();
  for (size_t p = 0; p < k; ++p) {
    sum += int64_t{x.q[p]} * w.q[p];
    inexact += static_cast<float>(x.q[p] * w.q[p]);
  }
  if (way == Way::saturating_pairs) {  // of 8 bits without sign by 8 bits with it, as AVX2 has it
    sum = 0;
    for (size_t p = 0; p < k; p += 2) {
      const size_t q = std::min(p + 1, k - 1);
      sum += saturated((x.q[p] + 128) * w.q[p] + (q > p ? (x.q[q] + 128) * w.q[q] : 0)) -
             128 * (w.q[p] + (q > p ? w.q[q] : 0));
    }
  }
  if (way == Way::float_sums) return inexact * w.scale * x.scale + bias;
  if (way == Way::fused) return std::fma(static_cast<float>(sum) * w.scale, x.scale, bias);
  return static_cast<float>(sum) * w.scale * x.scale + bias;
}

bool same(float a, float b) {
  return std::isnan(a) ? std::isnan(b) : std::memcmp(&a, &b, 4) == 0;
}

// x and W at addresses of odd alignment, and what their product is.
struct Problem8 {
  int64_t m, n, k;
  Fenced x, w, bias;

  Problem8(int64_t rows, int64_t columns, int64_t inner) : m(rows), n(columns), k(inner), x(m * k), w(n * k), bias(n) {
    Rng rng(static_cast<uint64_t>(m + 1000 * n + 1000000 * k));
    x = Fenced::normal(rng, m * k), w = Fenced::normal(rng, n * k, 0.05), bias = Fenced::normal(rng, n);
  }
  Int8Matrix packed() const {
    return Int8Matrix(io::stored(Tensor::of({n, k}, std::vector<float>(w.begin(), w.end()))));
  }

  std::vector<float> want(Way way = Way::exact, bool biased = true) const {
    const auto xs = rounded(x.data(), m, k), ws = rounded(w.data(), n, k);
    std::vector<float> y;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) y.push_back(element(xs[i], ws[j], biased ? bias[j] : 0, way));
    return y;
  }
  std::vector<float> got(const Int8Matrix& matrix, bool biased = true, int64_t first = 0, int64_t rows = -1) const {
    Fenced y((rows < 0 ? m : rows) * n, kNan);
    multiply(x.data() + first * k, rows < 0 ? m : rows, matrix, y.data(), biased ? bias.data() : nullptr);
    EXPECT_TRUE(y.intact()) << "wrote beyond y";
    return {y.begin(), y.end()};
  }
};

std::string difference(const std::vector<float>& got, const std::vector<float>& want, int64_t n) {
  for (size_t i = 0; i < want.size(); ++i)
    if (!same(got[i], want[i])) return fmt::format("at {}, {}: {} for {}", i / n, i % n, got[i], want[i]);
  return got.size() == want.size() ? "" : "sizes differ";
}

TEST(Int8Rows, AreRoundedAlikeAtEveryLevel) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (int64_t k = 0; k <= 200; ++k) {
      const Fenced x = Fenced::normal(rng, k, std::pow(10, k % 60 - 30));
      const int64_t padded = (k + 63) / 64 * 64;
      std::vector<int8_t> q(padded + 1, 99);
      float scale = -1;
      kernels::int8_rows().round(x.data(), k, q.data(), &scale);
      const Rounded want(x.data(), k);
      ASSERT_TRUE(same(scale, want.scale)) << k;
      for (int64_t i = 0; i < padded; ++i) ASSERT_EQ(q[i], i < k ? want.q[i] : 0) << i << " of " << k;
      ASSERT_EQ(q[padded], 99) << "wrote beyond the row";
    }
  });
}

TEST(Int8Rows, ExtremeRows) {
  for_each_level([](IsaLevel) {
    constexpr int64_t k = 37;
    int8_t q[64];
    float scale;
    for (const float value : {0.0f, -0.0f, 1e-45f, 1e-40f, 1e-30f, -1e-30f}) {
      const std::vector<float> x(k, value);
      kernels::int8_rows().round(x.data(), k, q, &scale);
      EXPECT_EQ(scale, 0) << value;
      for (const int8_t v : q) ASSERT_EQ(v, 0) << value;
    }
    for (const float value : {1.01e-30f, 1.0f, -3e38f, std::numeric_limits<float>::max()}) {
      const std::vector<float> x(k, value);
      kernels::int8_rows().round(x.data(), k, q, &scale);
      EXPECT_EQ(scale, std::fabs(value) / 127);
      for (int64_t i = 0; i < k; ++i) ASSERT_EQ(q[i], value > 0 ? 127 : -127) << value;
    }
    for (const float value : {kNan, kInf, -kInf})
      for (int64_t at = 0; at < k; ++at) {
        std::vector<float> x(k, 2);
        x[at] = value;
        kernels::int8_rows().round(x.data(), k, q, &scale);
        EXPECT_TRUE(std::isnan(scale)) << value << " at " << at;
        for (const int8_t v : q) ASSERT_GE(v, -127);
      }
  });
}

TEST(Int8Product, EveryShapeIsTheNaiveOneToTheBit) {
  for_each_level([](IsaLevel) {
    const HostileMemory hostile;
    for (const int64_t m : {1, 2, 3, 4, 5, 13, 14, 15, 29, 33})
      for (const int64_t n : {1, 15, 16, 17, 32, 33, 129})
        for (const int64_t k : {1, 2, 3, 4, 17, 63, 64, 65, 130}) {
          const Problem8 p(m, n, k);
          const Int8Matrix matrix = p.packed();
          for (const bool biased : {false, true})
            ASSERT_EQ(difference(p.got(matrix, biased), p.want(Way::exact, biased), n), "")
                << m << " " << n << " " << k;
        }
  });
}

TEST(Int8Product, LongSumsCrossPasses) {
  for_each_level([](IsaLevel) {
    for (const int64_t k : {2044, 2048, 2049, 4095, 4096, 4097, 9000})
      for (const int64_t m : {1, 4, 15, 33}) {
        const Problem8 p(m, 35, k);
        ASSERT_EQ(difference(p.got(p.packed()), p.want(), p.n), "") << m << " " << k;
      }
  });
}

// All numbers of a row at an end of the range, up to the longest row there is.
TEST(Int8Product, ExtremeRowsDoNotSaturate) {
  for_each_level([](IsaLevel) {
    for (const int64_t k : {int64_t{1}, int64_t{64}, int64_t{100}, Int8Matrix::kMostColumns}) {
      Problem8 p(k > 1000 ? 2 : 17, k > 1000 ? 3 : 33, k);
      for (int64_t i = 0; i < p.m * k; ++i) p.x[i] = i / k % 2 ? -1 : 1;
      for (int64_t i = 0; i < p.n * k; ++i) p.w[i] = i / k % 3 == 1 ? -2 : i / k % 3 == 2 && i % 2 ? -2 : 2;
      ASSERT_EQ(difference(p.got(p.packed(), false), p.want(Way::exact, false), p.n), "") << k;
      EXPECT_EQ(std::abs(p.got(p.packed(), false)[0]), static_cast<float>(16129 * k) * (2.0f / 127) * (1.0f / 127));
    }
  });
}

TEST(Int8Product, WrongWaysAreToldApart) {
  Problem8 p(5, 7, 5000);
  for (int64_t i = 0; i < p.k; ++i) p.x[i] = 1, p.w[i] = i % 2 ? 1 : 0.99f;
  for (const Way way : {Way::saturating_pairs, Way::float_sums, Way::fused})
    EXPECT_NE(difference(p.want(way), p.want(), p.n), "") << static_cast<int>(way);
}

TEST(Int8Product, ARowHasTheSameBitsInEveryCompanyAndOnAnyThreads) {
  const int before = thread_count();
  for_each_level([](IsaLevel) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{33, 37}, {300, 64}, {70, 5000}}) {
      const Problem8 p(300, n, k);
      const Int8Matrix matrix = p.packed();
      set_thread_count(1);
      const auto whole = p.got(matrix);
      for (const int threads : {1, 2, 3, 8}) {
        set_thread_count(threads);
        ASSERT_EQ(difference(p.got(matrix), whole, n), "") << threads << " threads";
      }
      for (int64_t m = 1; m <= 300; m += m < 18 ? 1 : m < 40 ? 7 : 37)
        for (const int64_t first : {int64_t{0}, (300 - m) / 2, 300 - m}) {
          const auto part = p.got(matrix, true, first, m);
          ASSERT_EQ(std::memcmp(part.data(), &whole[first * n], 4 * part.size()), 0) << m << " rows from " << first;
        }
    }
  });
  set_thread_count(before);
}

TEST(Int8Product, AMatrixPackedAtOneLevelServesAll) {
  const Problem8 p(6, 50, 70);
  const IsaLevel before = isa_level();
  set_isa_level(IsaLevel::scalar);
  const Int8Matrix matrix = p.packed();
  set_isa_level(before);
  for_each_level([&](IsaLevel) {
    EXPECT_EQ(std::memcmp(matrix.panels(), p.packed().panels(), 4 * matrix.depth() * 64), 0);
    EXPECT_EQ(difference(p.got(matrix), p.want(), p.n), "");
  });
}

TEST(Int8Product, WhatIsNotFiniteSpoilsItsRowAlone) {
  for_each_level([](IsaLevel) {
    for (const float bad : {kNan, kInf, -kInf}) {
      Problem8 p(20, 40, 90);
      p.x[3 * p.k + 89] = bad, p.w[33 * p.k] = bad;
      const auto y = p.got(p.packed());
      for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < p.n; ++j) ASSERT_EQ(std::isnan(y[i * p.n + j]), i == 3 || j == 33) << i << " " << j;
      ASSERT_EQ(difference(y, p.want(), p.n), "");
    }
  });
}

TEST(Int8Product, EmptyFactorsAndRowsOfZeros) {
  for_each_level([](IsaLevel) {
    EXPECT_TRUE(Problem8(0, 4, 5).got(Problem8(0, 4, 5).packed()).empty());
    EXPECT_TRUE(Problem8(4, 0, 5).got(Problem8(4, 0, 5).packed()).empty());
    for (const int64_t k : {0, 70})
      for (const float nothing : {0.0f, 1e-40f}) {
        Problem8 p(15, 40, k);
        std::fill(p.x.begin(), p.x.end(), nothing);
        const auto y = p.got(p.packed());
        for (int64_t i = 0; i < p.m * p.n; ++i) ASSERT_EQ(y[i], p.bias[i % p.n]);
      }
  });
}

TEST(Int8Product, IsNearTheProductOfFloats) {
  const Problem8 p(9, 40, 777);
  const auto y = p.got(p.packed(), false);
  double off = 0, size = 0;
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < p.k; ++c) sum += double{p.x[i * p.k + c]} * p.w[j * p.k + c];
      off += std::pow(y[i * p.n + j] - sum, 2), size += sum * sum;
    }
  // A normal row's largest of 777 is some 3.2 deviations: steps of 3.2 / 127, errors of step / sqrt(12), of two
  // factors.
  EXPECT_LT(std::sqrt(off / size), 1.3 * std::sqrt(2.0) * 3.2 / 127 / std::sqrt(12));
  EXPECT_GT(std::sqrt(off / size), 0.5 * std::sqrt(2.0) * 3.2 / 127 / std::sqrt(12));
}

TEST(Int8Product, RowsComeBackDecoded) {
  const Problem8 p(1, 70, 90);
  const Int8Matrix matrix = p.packed();
  std::vector<float> row(p.k);
  for (int64_t j = 0; j < p.n; ++j) {
    matrix.row(j, row.data());
    const Rounded want(p.w.data() + j * p.k, p.k);
    for (int64_t c = 0; c < p.k; ++c) ASSERT_EQ(row[c], want.scale * static_cast<float>(want.q[c]));
  }
  EXPECT_THROW(matrix.row(70, row.data()), InternalError);
}

TEST(Int8Product, TakesAWeightOfAnyFormat) {
  const Problem8 p(1, 20, 64);
  const io::StoredTensor floats = io::stored(Tensor::of({p.n, p.k}, std::vector<float>(p.w.begin(), p.w.end())));
  for (const io::BlockFormat format : io::block_formats()) {
    if (p.k % io::layout_of(format).numbers) continue;
    const io::StoredTensor stored = io::encoded(floats, format);
    const Tensor decoded = io::decoded(stored);
    std::vector<float> a(p.k), b(p.k);
    for (int64_t j = 0; j < p.n; ++j) {
      Int8Matrix(stored).row(j, a.data());
      Int8Matrix(io::stored(decoded)).row(j, b.data());
      ASSERT_EQ(a, b) << io::layout_of(format).name;
    }
  }
}

TEST(Int8Product, TooLongRowsAreRefused) {
  const Tensor w = Tensor::zeros({1, Int8Matrix::kMostColumns + 1});
  EXPECT_THROW(Int8Matrix(io::stored(w)), Error);
}

TEST(Int8Product, EveryTilingOfAmxGivesTheSameBits) {
  const Problem8 p(50, 75, 300);
  const AmxTiles before = amx_tiles();
  const Int8Matrix matrix = p.packed();
  for (const AmxTiles tiles : {AmxTiles::timed, AmxTiles::wide, AmxTiles::narrow}) {
    set_amx_tiles(tiles);
    EXPECT_EQ(difference(p.got(matrix), p.want(), p.n), "") << to_string(tiles);
  }
  set_amx_tiles(before);
}

TEST(Int8Product, ARepeatedCallAsksTheSystemForNothing) {
  const Problem8 p(65, 130, 200);
  const Int8Matrix matrix = p.packed();
  p.got(matrix);
  const int64_t before = memory_counters().system_allocations;
  p.got(matrix);
  EXPECT_EQ(memory_counters().system_allocations, before);
}

// Panels of a for tiles, as the header of amx_tiles.h describes them: [depth / 16][rows][16] units of four.
std::vector<int8_t> tile_panels(const std::vector<Rounded>& x, int64_t k, int64_t depth) {
  const int64_t m = std::ssize(x);
  std::vector<int8_t> panels(m * depth * 4);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t c = 0; c < k; ++c) {
      const int64_t first = i / 32 * 32, width = std::min<int64_t>(32, m - first), u = c / 4;
      panels[4 * (first * depth + (u / 16 * width + i - first) * 16 + u % 16) + c % 4] = static_cast<int8_t>(x[i].q[c]);
    }
  return panels;
}

template <bool kWide>
std::vector<float> by_tiles(const Problem8& p, const Int8Matrix& matrix) {
  const auto xs = rounded(p.x.data(), p.m, p.k);
  const auto a = tile_panels(xs, p.k, matrix.depth());
  std::vector<float> scales;
  for (const Rounded& r : xs) scales.push_back(r.scale);
  Fenced y(p.m * (p.n + 3), 7);
  EmulatedInt8Tiles unit;
  const kernels::PanelProduct product{.a = reinterpret_cast<const float*>(a.data()),
                                      .b = matrix.panels(),
                                      .m = p.m,
                                      .n = p.n,
                                      .a_rows = 32,
                                      .depth = matrix.depth(),
                                      .c = y.data(),
                                      .c_stride = p.n + 3,
                                      .accumulate = false,
                                      .bias = p.bias.data(),
                                      .a_scale = scales.data(),
                                      .b_scale = matrix.scales(),
                                      .b_sums = matrix.sums()};
  kernels::TileProduct<EmulatedInt8Tiles, kWide>(unit, product).run();
  EXPECT_TRUE(y.intact());
  std::vector<float> out;
  for (int64_t i = 0; i < p.m; ++i) {
    out.insert(out.end(), &y[i * (p.n + 3)], &y[i * (p.n + 3)] + p.n);
    for (int64_t j = p.n; j < p.n + 3; ++j) EXPECT_EQ(y[i * (p.n + 3) + j], 7) << "wrote beyond row " << i;
  }
  return out;
}

TEST(Int8Product, TilesMultiplyAtEveryShape) {
  for (const int64_t m : {1, 4, 15, 16, 17, 31, 32, 33, 50})
    for (const int64_t n : {1, 15, 16, 17, 31, 32, 33, 64, 75})
      for (const int64_t k : {0, 1, 63, 64, 65, 4200}) {
        if (k > 1000 && (m % 16 != 1 || n % 16 != 1)) continue;
        const Problem8 p(m, n, k);
        const Int8Matrix matrix = p.packed();
        ASSERT_EQ(difference(by_tiles<true>(p, matrix), p.want(), n), "") << m << " " << n << " " << k;
        ASSERT_EQ(difference(by_tiles<false>(p, matrix), p.want(), n), "") << m << " " << n << " " << k;
      }
}

#if defined(__x86_64__)
TEST(Int8Product, PanelsOfAForTiles) {
  if (!isa_level_refusal(IsaLevel::avx512).empty()) GTEST_SKIP() << isa_level_refusal(IsaLevel::avx512);
  for (const int64_t rows : {1, 15, 16, 17, 32})
    for (const int64_t k : {1, 63, 64, 65, 200}) {
      const Problem8 p(rows, 1, k);
      const int64_t depth = p.packed().depth();
      const auto xs = rounded(p.x.data(), rows, k);
      std::vector<int8_t> units(rows * depth * 4);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < k; ++c) units[4 * i * depth + c] = static_cast<int8_t>(xs[i].q[c]);
      std::vector<int8_t> got(units.size(), 5);
      kernels::amx::gemm_table.int8.timed->pack_a(reinterpret_cast<const float*>(units.data()), depth, false, rows,
                                                  depth, reinterpret_cast<float*>(got.data()));
      ASSERT_EQ(got, tile_panels(xs, k, depth)) << rows << " " << k;
    }
}
#endif

}  // namespace sennit::int8_product_test
