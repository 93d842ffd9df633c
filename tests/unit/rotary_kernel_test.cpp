#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "kernels/rotary.h"
#include "support/buffers.h"
#include "support/levels.h"

namespace sennit::rotary_kernel_test {

struct Heads {
  int64_t rows, heads, head_dim, pairs, stride;
  Fenced x, cosine, sine;
  std::vector<double> angles;
  Heads(Rng& rng, int64_t rows_, int64_t heads_, int64_t head_dim_, int64_t pairs_)
      : rows(rows_),
        heads(heads_),
        head_dim(head_dim_),
        pairs(pairs_),
        stride(heads * head_dim + 3),
        x(Fenced::normal(rng, rows * stride)),
        cosine(rows * pairs),
        sine(rows * pairs) {
    for (int64_t i = 0; i < rows * pairs; ++i) {
      angles.push_back(6.3 * rng.uniform());
      cosine[i] = static_cast<float>(std::cos(angles.back()));
      sine[i] = static_cast<float>(std::sin(angles.back()));
    }
  }
  kernels::RotaryTask task(Fenced& to, bool inverse) const {
    return {.x = to.data(),
            .rows = rows,
            .row_stride = stride,
            .heads = heads,
            .head_dim = head_dim,
            .cos = cosine.data(),
            .sin = sine.data(),
            .pairs = pairs,
            .inverse = inverse};
  }
};

TEST(RotaryKernel, TurnsPairsAsComplexNumbersAndBack) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (bool interleaved : {false, true})
      for (int64_t pairs = 0; pairs <= 40; ++pairs) {
        Heads s(rng, 3, 2, 2 * pairs + (pairs % 3), pairs);
        const auto turn = interleaved ? kernels::rotary().interleaved : kernels::rotary().halves;
        Fenced y = s.x;
        turn(s.task(y, false));
        ASSERT_TRUE(y.intact());
        std::vector<double> expected = s.x.doubles();
        for (int64_t r = 0; r < s.rows; ++r)
          for (int64_t h = 0; h < s.heads; ++h)
            for (int64_t i = 0; i < pairs; ++i) {
              double* head = expected.data() + r * s.stride + h * s.head_dim;
              double& re = head[interleaved ? 2 * i : i];
              double& im = head[interleaved ? 2 * i + 1 : i + pairs];
              const auto z = std::complex<double>(re, im) * std::polar(1.0, s.angles[r * pairs + i]);
              re = z.real(), im = z.imag();
            }
        for (int64_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 1e-6) << pairs;
        turn(s.task(y, true));
        for (int64_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], s.x[i], 1e-6) << pairs;
      }
  });
}

}  // namespace sennit::rotary_kernel_test
