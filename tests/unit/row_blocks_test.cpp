#include "ops/row_blocks.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace sennit::row_blocks_test {

Tensor normal(Rng& rng, int64_t rows, int64_t width) {
  Tensor x({rows, width});
  for (float& v : x.span()) v = static_cast<float>(rng.normal());
  return x;
}

TEST(RowBlocks, SumsOfRowsAgreeWithDouble) {
  Rng rng(1);
  for (const int64_t rows : {0, 1, 63, 64, 65, 200})
    for (const int64_t width : {1, 33, 100}) {
      const Tensor x = normal(rng, rows, width), factor = normal(rng, rows, width);
      for (const bool weighed : {false, true}) {
        const Tensor sum = row_sum(x, weighed ? factor : Tensor());
        ASSERT_EQ(sum.shape(), Shape({width}));
        for (int64_t j = 0; j < width; ++j) {
          double want = 0, size = 0;
          for (int64_t i = 0; i < rows; ++i) {
            const double term = x.data()[i * width + j] * (weighed ? double{factor.data()[i * width + j]} : 1);
            want += term, size += std::fabs(term);
          }
          ASSERT_NEAR(sum.data()[j], want, 1e-6 * size) << rows << " rows of " << width;
        }
      }
    }
}

TEST(RowBlocks, ThreadsDoNotShow) {
  Rng rng(2);
  const Tensor x = normal(rng, 300, 40);
  const int before = thread_count();
  std::vector<float> sums[2];
  for (const int n : {1, 3}) {
    set_thread_count(n);
    const Tensor sum = row_sum(x);
    sums[n > 1].assign(sum.data(), sum.data() + 40);
  }
  set_thread_count(before);
  EXPECT_EQ(sums[0], sums[1]);
}

}  // namespace sennit::row_blocks_test
