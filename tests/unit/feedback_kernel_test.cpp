#include <gtest/gtest.h>

#include <cmath>

#include "kernels/feedback.h"
#include "support/buffers.h"
#include "support/levels.h"

namespace sennit::feedback_kernel_test {

// a [m, k], b [k, n] with NaN between rows, and c as it was before.
struct Sample {
  int64_t m, k, n, a_stride, b_stride, c_stride;
  Fenced a, b, start;
  Sample(Rng& rng, int64_t rows, int64_t depth, int64_t columns)
      : m(rows),
        k(depth),
        n(columns),
        a_stride(depth + 3),
        b_stride(columns + 5),
        c_stride(columns + 2),
        a(Fenced::normal(rng, rows * a_stride)),
        b(depth * b_stride, NAN),
        start(Fenced::normal(rng, rows * c_stride)) {
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < n; ++j) b[i * b_stride + j] = static_cast<float>(rng.normal());
  }
  kernels::FeedProduct product(const float* right, int64_t row, int64_t panel, float* c, bool accumulate) const {
    return {a.data(), a_stride, m, k, right, row, panel, n, c, c_stride, accumulate};
  }
  Fenced as_it_lies(bool accumulate) const {
    Fenced c = start;
    kernels::feedback().multiply(product(b.data(), b_stride, kernels::feedback().columns, c.data(), accumulate));
    return c;
  }
  Fenced packed(bool accumulate, bool transposed) const {
    const kernels::Feedback& kernel = kernels::feedback();
    Fenced panels(kernel.packed_floats(k, n), NAN), c = start;
    if (transposed) {
      Fenced turned(n * (k + 1), NAN);
      for (int64_t i = 0; i < k; ++i)
        for (int64_t j = 0; j < n; ++j) turned[j * (k + 1) + i] = b[i * b_stride + j];
      kernel.pack_transposed(turned.data(), k + 1, k, n, panels.data());
    } else {
      kernel.pack(b.data(), b_stride, k, n, panels.data());
    }
    EXPECT_TRUE(panels.intact());
    kernel.multiply(product(panels.data(), kernel.columns, kernel.columns * k, c.data(), accumulate));
    return c;
  }
};

void expect_same(const Fenced& a, const Fenced& b) {
  ASSERT_TRUE(a.intact());
  for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << "at " << i;
}

TEST(FeedbackKernel, IsOneChainHoweverTheMatrixLies) {
  for_each_level([](IsaLevel level) {
    Rng rng(1);
    for (const int64_t m : {0, 1, 2, 3, 4, 5, 6, 7, 13, 26})
      for (const int64_t k : {1, 2, 19, 40})
        for (const int64_t n : {1, 7, 8, 31, 32, 150}) {
          const Sample s(rng, m, k, n);
          for (const bool accumulate : {false, true}) {
            SCOPED_TRACE(testing::Message() << m << " " << k << " " << n << " " << accumulate);
            Fenced want = s.start;
            for (int64_t i = 0; i < m; ++i)
              for (int64_t j = 0; j < n; ++j) {
                float sum = accumulate ? want[i * s.c_stride + j] : 0;
                for (int64_t p = 0; p < k; ++p) {
                  const float x = s.a[i * s.a_stride + p], y = s.b[p * s.b_stride + j];
                  sum = level == IsaLevel::scalar ? x * y + sum : std::fma(x, y, sum);
                }
                want[i * s.c_stride + j] = sum;
              }
            expect_same(s.as_it_lies(accumulate), want);
            expect_same(s.packed(accumulate, false), want);
            expect_same(s.packed(accumulate, true), want);
          }
        }
  });
}

}  // namespace sennit::feedback_kernel_test
