#include "products/product.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "support/levels.h"

namespace sennit::product_test {

std::vector<float> random_floats(int64_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(n);
  for (auto& v : x) v = static_cast<float>(rng.normal());
  return x;
}

constexpr float kCanary = 77;

// A product in memory of odd strides and alignment.
struct Problem3 {
  int64_t m, n, k;
  bool a_transposed = false, b_transposed = false;
  int64_t a_stride = (a_transposed ? m : k) + 3, b_stride = (b_transposed ? k : n) + 5, c_stride = n + 2;
  std::vector<float> a = random_floats((a_transposed ? k : m) * a_stride + 1, 1);
  std::vector<float> b = random_floats((b_transposed ? n : k) * b_stride + 1, 2);
  std::vector<float> start = random_floats(m * n, 3), bias = random_floats(n, 4);

  MatrixView view_a(int64_t first = 0, int64_t rows = -1) const {
    return {a.data() + 1 + first * (a_transposed ? 1 : a_stride), rows < 0 ? m : rows, k, a_stride, a_transposed};
  }
  MatrixView view_b() const { return {b.data() + 1, k, n, b_stride, b_transposed}; }
  double a_at(int64_t i, int64_t p) const { return a[1 + (a_transposed ? p * a_stride + i : i * a_stride + p)]; }
  double b_at(int64_t p, int64_t j) const { return b[1 + (b_transposed ? j * b_stride + p : p * b_stride + j)]; }

  // Rows of c, canaries checked and dropped.
  template <class Multiply>
  std::vector<float> rows_by(int64_t first, int64_t rows, bool accumulate, Multiply&& run) const {
    std::vector<float> c(rows * c_stride + 1, kCanary), out;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < n; ++j) c[1 + i * c_stride + j] = accumulate ? start[(first + i) * n + j] : NAN;
    run(view_a(first, rows), c.data() + 1, c_stride);
    EXPECT_EQ(c[0], kCanary);
    for (int64_t i = 0; i < rows; ++i) {
      out.insert(out.end(), &c[1 + i * c_stride], &c[1 + i * c_stride] + n);
      for (int64_t j = n; j < c_stride && 1 + i * c_stride + j < static_cast<int64_t>(c.size()); ++j)
        EXPECT_EQ(c[1 + i * c_stride + j], kCanary) << "wrote beyond row " << i;
    }
    return out;
  }
  std::vector<float> plain(Precision precision, bool add, int64_t first = 0, int64_t rows = -1) const {
    return rows_by(first, rows < 0 ? m : rows, add, [&](MatrixView x, float* c, int64_t stride) {
      multiply(x, view_b(), c, stride, {precision, add, add ? bias.data() : nullptr});
    });
  }
  std::vector<float> packed(const PackedMatrix& matrix, bool add, int64_t first = 0, int64_t rows = -1) const {
    return rows_by(first, rows < 0 ? m : rows, add, [&](MatrixView x, float* c, int64_t stride) {
      multiply(x, matrix, c, stride, add, add ? bias.data() : nullptr);
    });
  }

  void expect_close(const std::vector<float>& got, Precision precision, bool add) const {
    const auto factor = [&](double x) {
      return precision == Precision::f32 ? x : double{to_float(to_bf16(static_cast<float>(x)))};
    };
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double want = 0, size = 0;
        if (add) want = double{start[i * n + j]} + bias[j], size = std::abs(start[i * n + j]) + std::abs(bias[j]);
        for (int64_t p = 0; p < k; ++p) {
          const double term = factor(a_at(i, p)) * factor(b_at(p, j));
          want += term, size += std::abs(term);
        }
        // Each of 2 k + 1 roundings loses at most half a unit of a partial sum.
        ASSERT_NEAR(got[i * n + j], want, static_cast<double>(2 * k + 1) * 0x1p-24 * size)
            << to_string(precision) << " " << m << "x" << k << "x" << n << " at " << i << ", " << j;
      }
  }
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

class Threads {
 public:
  explicit Threads(int n) : before_(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before_); }

 private:
  int before_;
};

constexpr Precision kPrecisions[] = {Precision::f32, Precision::bf16};

TEST(Product, EveryShapeAndFormAgreesWithDouble) {
  for_each_level([](IsaLevel) {
    const HostileMemory hostile;
    for (const Precision precision : kPrecisions)
      for (const int64_t m : {1, 2, 3, 4, 5, 13, 14, 15, 29, 33})
        for (const int64_t n : {1, 15, 16, 17, 32, 33, 129})
          for (const int64_t k : {1, 2, 17, 32, 65})
            for (const bool add : {false, true}) {
              const bool at = (m + n) % 2, bt = (m + k) % 2;
              const Problem3 p{m, n, k, at, bt};
              const auto got = p.plain(precision, add);
              p.expect_close(got, precision, add);
              ASSERT_TRUE(same_bits(got, p.packed(PackedMatrix(p.view_b(), precision), add))) << "packed differs";
            }
  });
}

TEST(Product, LongSumsCrossBlocks) {
  for_each_level([](IsaLevel) {
    for (const Precision precision : kPrecisions)
      for (const int64_t k : {511, 512, 513, 1023, 1024, 1025, 2100}) {
        const Problem3 p{7, 35, k};
        for (const bool add : {false, true}) p.expect_close(p.plain(precision, add), precision, add);
      }
  });
}

TEST(Product, ARowHasTheSameBitsInEveryCompany) {
  for_each_level([](IsaLevel) {
    for (const Precision precision : kPrecisions)
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{33, 37}, {300, 64}, {70, 1300}}) {
        const Problem3 p{300, n, k};
        const auto whole = p.plain(precision, true);
        const PackedMatrix matrix(p.view_b(), precision);
        for (const int threads : {1, 2, 3, 8}) {
          const Threads use(threads);
          ASSERT_TRUE(same_bits(whole, p.plain(precision, true))) << threads << " threads";
          ASSERT_TRUE(same_bits(whole, p.packed(matrix, true))) << threads << " threads, packed";
        }
        for (int64_t m = 1; m <= 300; m += m < 18 ? 1 : m < 40 ? 7 : 37)
          for (const int64_t first : {int64_t{0}, (300 - m) / 2, 300 - m}) {
            const auto part = p.packed(matrix, true, first, m);
            ASSERT_EQ(std::memcmp(part.data(), &whole[first * n], 4 * part.size()), 0)
                << to_string(precision) << " n " << n << " k " << k << ": " << m << " rows from " << first;
          }
      }
  });
}

// More bands of rows than two, of uneven height, and rows that lie across packed a few at a time.
TEST(Product, HowThreadsShareTheRowsChangesNoBit) {
  for_each_level([](IsaLevel) {
    for (const Precision precision : kPrecisions)
      for (const bool across : {false, true}) {
        const Problem3 p{1500, 130, 70, across};
        const PackedMatrix matrix(p.view_b(), precision);
        std::vector<float> of_one;
        for (const int threads : {1, 2, 5, 16}) {
          const Threads use(threads);
          const auto got = p.plain(precision, true);
          if (threads == 1) of_one = got, p.expect_close(got, precision, true);
          ASSERT_TRUE(same_bits(of_one, got)) << threads << " threads";
          ASSERT_TRUE(same_bits(of_one, p.packed(matrix, true))) << threads << " threads, packed";
        }
      }
  });
}

TEST(Product, PartsOfALargeFactorAreTheWhole) {
  // Beyond what is packed at a time, both ways.
  const Problem3 wide{3, 40, 120000}, tall{300, 2, 30000};
  for (const Problem3* p : {&wide, &tall}) {
    const auto whole = p->plain(Precision::f32, true);
    ASSERT_TRUE(same_bits(whole, p->packed(PackedMatrix(p->view_b(), Precision::f32), true)));
    const auto last = p->plain(Precision::f32, true, p->m - 1, 1);
    ASSERT_EQ(std::memcmp(last.data(), &whole[(p->m - 1) * p->n], 4 * last.size()), 0);
  }
  const Problem3 rows{3, 300, 30000};
  ASSERT_TRUE(
      same_bits(rows.plain(Precision::f32, true), rows.packed(PackedMatrix(rows.view_b(), Precision::f32), true)));
}

TEST(Product, AMatrixPackedAtOneLevelServesAll) {
  const Problem3 p{6, 50, 70};
  for (const Precision precision : kPrecisions) {
    const IsaLevel before = isa_level();
    set_isa_level(IsaLevel::scalar);
    const PackedMatrix matrix(p.view_b(), precision);
    set_isa_level(before);
    for_each_level([&](IsaLevel) { EXPECT_TRUE(same_bits(p.packed(matrix, false), p.plain(precision, false))); });
  }
}

TEST(Product, EveryTilingOfAmxGivesTheSameBits) {
  const Problem3 p{50, 75, 300};
  const AmxTiles before = amx_tiles();
  const auto timed = p.plain(Precision::bf16, true);
  for (const AmxTiles tiles : {AmxTiles::wide, AmxTiles::narrow}) {
    set_amx_tiles(tiles);
    EXPECT_TRUE(same_bits(timed, p.plain(Precision::bf16, true))) << to_string(tiles);
  }
  set_amx_tiles(before);
}

TEST(Product, EmptyFactors) {
  for_each_level([](IsaLevel) {
    for (const Precision precision : kPrecisions) {
      const Problem3 no_sum{5, 40, 0};
      const auto got = no_sum.plain(precision, true);
      for (int64_t i = 0; i < 5 * 40; ++i) ASSERT_EQ(got[i], no_sum.start[i] + no_sum.bias[i % 40]);
      for (const float v : no_sum.plain(precision, false)) ASSERT_EQ(v, 0);
      EXPECT_TRUE((Problem3{0, 4, 5}.plain(precision, true).empty()));
      EXPECT_TRUE((Problem3{4, 0, 5}.plain(precision, true).empty()));
      EXPECT_EQ(PackedMatrix(Problem3{1, 0, 5}.view_b(), precision).bytes(), 0);
    }
  });
}

TEST(Product, ARepeatedCallAsksTheSystemForNothing) {
  const Problem3 p{65, 130, 200};
  for (const Precision precision : kPrecisions) p.plain(precision, false);
  const int64_t before = memory_counters().system_allocations;
  for (const Precision precision : kPrecisions) p.plain(precision, false);
  EXPECT_EQ(memory_counters().system_allocations, before);
}

TEST(Product, WrongShapesAreBugs) {
  const Problem3 p{4, 5, 6};
  std::vector<float> c(20);
  MatrixView b = p.view_b();
  b.rows = 5;
  EXPECT_THROW(multiply(p.view_a(), b, c.data(), 5), InternalError);
  EXPECT_THROW(multiply(p.view_a(), p.view_b(), c.data(), 4), InternalError);
  b = p.view_b();
  b.stride = 4;
  EXPECT_THROW(PackedMatrix(b, Precision::f32), InternalError);
}

TEST(Precision, NamesAndBack) {
  for (const Precision p : kPrecisions) EXPECT_EQ(parse_precision(to_string(p), "--precision"), p);
  EXPECT_THROW(parse_precision("fp8", "--precision"), Error);
}

}  // namespace sennit::product_test
