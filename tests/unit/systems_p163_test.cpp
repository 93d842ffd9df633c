// BASED (Arora et al., arXiv:2402.18668): a positive kernel in three forms that agree, and tokens that cost the same
// however late they come.
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/features.h"
#include "ops/layout.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p163_test {

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

TEST(SystemsP163, RowsOfTheImplicitMatrixSumToOne) {
  expect_rows_of_weights("based");
}

// Outputs and all gradients: of one pass, of chunks with a state, and of tokens one by one.
TEST(SystemsP163, ParallelChunkedAndRecurrentFormsAgree) {
  const int64_t n = 150, d = 32;
  const Tensor rows = normal_rows(n, d, 7), dy = normal_rows(n, d, 8);
  const auto run = [&](int64_t piece) {
    auto mixer = make_mixer("based", d);
    const Context context;
    SequenceState state;
    const Var x = Var::leaf(rows.clone());
    std::vector<Var> parts;
    for (int64_t t = 0; t < n; t += piece) {
      const int64_t count = std::min(piece, n - t);
      const Segment segment[] = {{0, count, t, piece < n ? &state : nullptr}};
      parts.push_back(mixer->forward(sennit::rows(x, t, count), {segment, &context}));
    }
    const Var y = concat_rows(parts);
    backward(y, dy);
    std::vector<Tensor> all = {y.value(), x.grad()};
    mixer->parameters([&](const std::string&, Parameter& p) { all.push_back(p.var.grad()); });
    return all;
  };
  const auto whole = run(n), chunks = run(16), steps = run(1);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_LE(most_apart(chunks[i], whole[i]), 1e-4) << i;
    EXPECT_LE(most_apart(steps[i], whole[i]), 1e-4) << i;
  }
  NoGrad off;
  auto mixer = make_mixer("based", d);
  EXPECT_LE(most_apart(run_square(*mixer, rows), whole[0]), 1e-4);
}

TEST(SystemsP163, AStateOfConstantSize) {
  EXPECT_EQ(state_bytes("based", 20), state_bytes("based", 500));
}

TEST(SpeedP163, LateTokensCostNoMoreAndAThirdOfAttention) {
  const int64_t d = 256;
  const Json part = {{"name", "based"}, {"heads", 4}};
  const double flat = step_ratio(part, d, 16384, 1024);
  auto based = make_mixer(part, d), softmax = make_mixer("softmax", d);
  SequenceState of_based, of_softmax;
  run_alone(*based, normal_rows(16384, d, 1), &of_based);
  run_alone(*softmax, normal_rows(16384, d, 1), &of_softmax);
  const Tensor token = normal_rows(1, d, 3);
  const auto steps = [&](Mixer& mixer, SequenceState& state) {
    return [&] {
      for (int i = 0; i < 20; ++i) run_alone(mixer, token, &state);
    };
  };
  const double quicker = processor_ratio(15, steps(*softmax, of_softmax), steps(*based, of_based));
  std::printf("a token after 16384: %.3f times one after 1024; attention takes %.2f times as long\n", flat, quicker);
  EXPECT_NEAR(flat, 1, 0.1);
  EXPECT_GE(quicker, 3);
}

}  // namespace sennit::systems_p163_test
