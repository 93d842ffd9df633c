// What the papers on linear attention promise: BASED (P163).
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/features.h"
#include "ops/products.h"
#include "sequence/recurrences.h"
#include "sequence/running.h"
#include "support/mixers.h"

namespace sennit::systems_linear_mixers_test {

int64_t state_bytes(const std::string& name, int64_t n) {
  auto mixer = make_mixer({{"name", name}}, 32);
  SequenceState state;
  run_alone(*mixer, normal_rows(n, 32, 1), &state);
  return state.bytes();
}

void expect_weights_that_sum_to_one(const Json& part) {
  NoGrad off;
  auto mixer = make_mixer(part, 32);
  const auto m = mixer->implicit(Var(normal_rows(60, 32, 4)), {});
  ASSERT_TRUE(m);
  const Tensor& w = m->weights;
  for (int64_t h = 0; h < w.shape(0); ++h)
    for (int64_t i = 0; i < 60; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < 60; ++j) {
        const float weight = w.data()[(h * 60 + i) * 60 + j];
        ASSERT_GE(weight, 0);
        sum += weight;
      }
      ASSERT_NEAR(sum, 1, 2e-6);
    }
}
TEST(SystemsP163, RowsOfTheImplicitMatrixSumToOne) {
  expect_weights_that_sum_to_one({{"name", "based"}});
}

TEST(SystemsP163, FeaturesAreTheTaylorKernelWhichIsPositive) {
  NoGrad off;
  constexpr int64_t kDim = 16;
  const Tensor q = normal_rows(300, kDim, 5), k = normal_rows(300, kDim, 6);
  const Tensor a = taylor_features(Var(q), 1).value(), b = taylor_features(Var(k), 1).value();
  for (int64_t i = 0; i < 300; ++i) {
    double s = 0, got = 0, size = 0;
    for (int64_t c = 0; c < kDim; ++c) s += double{q.data()[i * kDim + c]} * k.data()[i * kDim + c];
    for (int64_t c = 0; c < taylor_count(kDim); ++c) {
      const double term = double{a.data()[i * taylor_count(kDim) + c]} * b.data()[i * taylor_count(kDim) + c];
      got += term, size += std::fabs(term);
    }
    ASSERT_NEAR(got, 1 + s + s * s / 2, 1e-7 * size);
    ASSERT_GT(got, 0);
  }
}

TEST(SystemsP163, AStateOfConstantSize) {
  EXPECT_EQ(state_bytes("based", 20), state_bytes("based", 500));
}
// Chunked, stepwise and as the square of weights, for the scaling study's three linear mixers and for TransNormer's own.
void expect_three_forms(const Json& part) {
  auto mixer = make_mixer(part, 32);
  const Tensor x = normal_rows(150, 32, 14), whole = run_alone(*mixer, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-4);
  EXPECT_LE(most_apart(run_square(*mixer, x), whole), 1e-4);
}
const Json kTransNormer{{"name", "gla"}, {"decay", "fixed"}, {"feature", "silu"}};
TEST(SystemsP256, ChunksStepsAndTheSquareAgree) {
  expect_three_forms(kTransNormer);
  expect_three_forms("hgrn2");
  expect_three_forms({{"name", "gla"}, {"decay", "none"}, {"feature", "silu"}, {"rotary", true}});
}
TEST(SystemsP060, LinearAndQuadraticOrdersAgree) {
  expect_three_forms(kTransNormer);
}

}  // namespace sennit::systems_linear_mixers_test
