// Flowformer (Wu et al., arXiv:2202.06258): flows are conserved, both patterns, and its time.
#include <gtest/gtest.h>

#include "ops/products.h"
#include "sequence/whole.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p044_test {

constexpr int64_t kDim = 32, kHeads = 4, kRows = 150;

TEST(SystemsP044, LinearFormsAreTheSquare) {
  auto mixer = make_mixer("flowformer", kDim);
  const Tensor x = normal_rows(kRows, kDim, 1), whole = run_alone(*mixer, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-4);
  EXPECT_LE(most_apart(run_square(*mixer, x), whole), 1e-4);
  EXPECT_EQ(state.bytes(), 4 * (kDim * kDim / kHeads + 4 * kDim + kHeads));
}

// All pairs, both ways, with flows phi(q_t) . phi(k_s) in double. On the way: what leaves each key and comes into each
// query is one, once divided by what would.
TEST(SystemsP044, FlowsAreConservedAndGiveTheBidirectionalForm) {
  auto mixer = make_mixer("flowformer", kDim);
  const Tensor x = normal_rows(kRows, kDim, 2);
  const auto map = [&](const char* name) {
    return matmul(Var(x), Var(parameter_of(*mixer, name).value()), {.transpose_b = true}).value();
  };
  const Tensor q = map("q.weight"), k = map("k.weight"), v = map("v.weight");
  constexpr int64_t kHead = kDim / kHeads;
  Tensor core = Tensor::zeros({kRows, kDim});
  for (int64_t h = 0; h < kHeads; ++h) {
    std::vector<std::vector<double>> flow(kRows, std::vector<double>(kRows));
    std::vector<double> in(kRows), away(kRows), given(kRows), strength(kRows);
    const auto phi = [](float a) { return 1 / (1 + std::exp(-double{a})) + 1e-6; };
    for (size_t t = 0; t < kRows; ++t)
      for (size_t s = 0; s < kRows; ++s) {
        for (int64_t p = h * kHead; p < (h + 1) * kHead; ++p)
          flow[t][s] +=
              phi(q.data()[static_cast<int64_t>(t) * kDim + p]) * phi(k.data()[static_cast<int64_t>(s) * kDim + p]);
        in[t] += flow[t][s], away[s] += flow[t][s];
      }
    double total = 0;
    for (size_t t = 0; t < kRows; ++t) {
      double into = 0, out_of = 0;
      for (size_t s = 0; s < kRows; ++s) {
        given[t] += flow[t][s] / away[s], strength[t] += flow[s][t] / in[s];
        into += flow[t][s] / in[t], out_of += flow[s][t] / away[t];
      }
      ASSERT_NEAR(into, 1, 1e-5);
      ASSERT_NEAR(out_of, 1, 1e-5);
      strength[t] = std::exp(std::fmin(strength[t], 1.0)), total += strength[t];
    }
    for (size_t t = 0; t < kRows; ++t)
      for (int64_t c = h * kHead; c < (h + 1) * kHead; ++c) {
        double y = 0;
        for (size_t s = 0; s < kRows; ++s)
          y += flow[t][s] / in[t] * kRows * strength[s] / total * v.data()[static_cast<int64_t>(s) * kDim + c];
        core.data()[static_cast<int64_t>(t) * kDim + c] = static_cast<float>(y / (1 + std::exp(-given[t])));
      }
  }
  NoGrad off;
  EXPECT_LE(
      most_apart(run_alone(*mixer, x, nullptr, Pattern::bidirectional), mixer->output(Var(x), Var(core), {}).value()),
      1e-4);
}

// The engine's own sums: after dividing, what leaves each key is one.
TEST(SystemsP044, WholeSumsConserve) {
  NoGrad off;
  Tensor q = normal_rows(kRows, kDim, 3), k = normal_rows(kRows, kDim, 4);
  for (Tensor* t : {&q, &k})
    for (float& a : t->span()) a = 1 / (1 + std::exp(-a));
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  const Var ones(Tensor::full({kRows, kHeads}, 1));
  const Tensor away = whole_products(Var(k), Var(q), ones, whole, kHeads).value();
  Tensor shared = k.clone();
  for (int64_t i = 0; i < shared.elements(); ++i) shared.data()[i] /= away.data()[i / (kDim / kHeads)];
  const Tensor leaves = whole_products(Var(shared), Var(q), ones, whole, kHeads).value();
  for (const float a : leaves.span()) ASSERT_NEAR(a, 1, 1e-5);
}

TEST(SystemsP044, TheOrderOfTokensDoesNotMatterBothWays) {
  auto mixer = make_mixer("flowformer", kDim);
  const Tensor x = normal_rows(kRows, kDim, 5), y = run_alone(*mixer, x, nullptr, Pattern::bidirectional);
  Tensor mixed(x.shape()), wanted(x.shape());
  for (int64_t t = 0; t < kRows; ++t) {
    mixed.slice(t, 1).copy_from(x.slice((t * 7 + 3) % kRows, 1));
    wanted.slice(t, 1).copy_from(y.slice((t * 7 + 3) % kRows, 1));
  }
  EXPECT_LE(most_apart(run_alone(*mixer, mixed, nullptr, Pattern::bidirectional), wanted), 1e-5);
}

TEST(SystemsP044, SpeedTimeGrowsWithTheLengthAndBeatsDenseAttention) {
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional})
    EXPECT_LE(std::log(time_ratio("flowformer", 64, 16384, 1024, p)) / std::log(16), 1.1);
  EXPECT_LE(time_against("flowformer", {{"name", "softmax"}, {"position", "none"}}, 64, 8192, Pattern::bidirectional),
            0.25);
}

}  // namespace sennit::systems_p044_test
