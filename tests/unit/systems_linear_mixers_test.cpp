// What the papers on linear attention promise: BASED (P163) and AFT (P305).
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

// Only differences of logits matter, and large ones overflow nothing.
void expect_no_shift(const Json& part) {
  auto mixer = make_mixer(part, 32);
  Tensor x = normal_rows(90, 32, 3);
  for (int64_t t = 0; t < 90; ++t) x.data()[t * 32] = 1;  // a column of ones: its weights are shifts
  const Tensor before = run_alone(*mixer, x);
  Tensor& k = parameter_of(*mixer, "k.weight").var.value();
  for (int64_t i = 0; i < k.rows(); ++i) k.data()[i * 32] += 200;
  EXPECT_LE(most_apart(run_alone(*mixer, x), before), 3e-5);
}
TEST(SystemsP305, AShiftOfTheKeysChangesNothing) {
  expect_no_shift({{"name", "latte"}, {"latents", 1}, {"channelwise", true}, {"gate", true}});
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
TEST(SystemsP305, RowsOfTheImplicitMatrixSumToOne) {
  expect_weights_that_sum_to_one({{"name", "latte"}, {"latents", 1}, {"channelwise", true}});
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

TEST(SystemsP305, WithoutDistancesTheConvolutionIsTheSimpleForm) {
  auto conv = make_mixer({{"name", "aft"}, {"window", 7}}, 32);
  auto simple = make_mixer({{"name", "latte"}, {"latents", 1}, {"channelwise", true}, {"gate", true}}, 32);
  parameter_of(*conv, "distances").var.value().fill(0);
  const std::pair<const char*, const char*> same[] = {{"k", "k"}, {"v", "v"}, {"out", "out"}, {"q", "gate"}};
  for (const auto& [a, b] : same)
    parameter_of(*simple, std::string(b) + ".weight")
        .var.value()
        .copy_from(parameter_of(*conv, std::string(a) + ".weight").value());
  const Tensor x = normal_rows(150, 32, 13);
  EXPECT_LE(most_apart(run_alone(*conv, x), run_alone(*simple, x)), 1e-5);
}

}  // namespace sennit::systems_linear_mixers_test
