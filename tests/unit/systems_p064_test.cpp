// Modern Hopfield networks (Ramsauer et al., arXiv:2008.02217): retrieval, energies and fixed points, states at rest,
// and pooling.
#include <gtest/gtest.h>

#include "ops/count.h"
#include "sequence/attention.h"
#include "support/mixers.h"
#include "support/regression.h"

namespace sennit::systems_p064_test {

TEST(SystemsP064, OneUpdateIsSoftmaxAttention) {
  auto hopfield = make_mixer({{"name", "hopfield"}, {"updates", 1}}, 32),
       softmax = make_mixer({{"name", "softmax"}, {"position", "none"}}, 32, 2);
  copy_parameters(*hopfield, *softmax, {"q.weight", "k.weight", "v.weight", "out.weight"});
  const Tensor x = normal_rows(120, 32, 7);
  for (const Pattern p : {Pattern::causal, Pattern::bidirectional})
    EXPECT_TRUE(same_numbers(run_alone(*hopfield, x, nullptr, p), run_alone(*softmax, x, nullptr, p)));
}

// r <- softmax(beta r X^T) X of every row of `states`, by the mixer's operation.
Tensor update(const Tensor& states, const Tensor& stored, float beta) {
  NoGrad off;
  const Var keys[] = {Var(stored)};
  const AttentionSegment all[] = {{0, states.rows(), 0, 0, stored.rows(), 0}};
  return attention(Var(states), keys, keys, all, {.heads = 1, .kv_heads = 1, .scale = beta, .causal = false}).value();
}
double energy(const float* r, const Tensor& stored, double beta) {
  double top = -INFINITY, sum = 0, square = 0;
  std::vector<double> s(stored.rows());
  for (int64_t j = 0; j < stored.rows(); ++j) {
    for (int64_t c = 0; c < stored.row_size(); ++c) s[j] += double{r[c]} * stored.data()[j * stored.row_size() + c];
    top = std::fmax(top, beta * s[j]);
  }
  for (const double v : s) sum += std::exp(beta * v - top);
  for (int64_t c = 0; c < stored.row_size(); ++c) square += double{r[c]} * r[c];
  return -(top + std::log(sum)) / beta + square / 2;
}

TEST(SystemsP064, EnergyNeverRises) {
  const Tensor stored = normal_rows(30, 16, 8);
  Tensor states = normal_rows(1000, 16, 9);
  for (int step = 0; step < 4; ++step) {
    const Tensor next = update(states, stored, 0.7f);
    for (int64_t i = 0; i < 1000; ++i)
      ASSERT_LE(energy(next.data() + i * 16, stored, 0.7), energy(states.data() + i * 16, stored, 0.7) + 1e-4)
          << "step " << step;
    states = next;
  }
}

Tensor on_sphere(int64_t n, int64_t d, uint64_t seed) {  // of radius sqrt(d)
  Tensor x = normal_rows(n, d, seed);
  for (int64_t i = 0; i < n; ++i) {
    double square = 0;
    for (int64_t c = 0; c < d; ++c) square += double{x.data()[i * d + c]} * x.data()[i * d + c];
    for (int64_t c = 0; c < d; ++c)
      x.data()[i * d + c] *= static_cast<float>(std::sqrt(static_cast<double>(d) / square));
  }
  return x;
}

TEST(SystemsP064, OneUpdateRetrievesOneOfThousands) {
  const Tensor stored = on_sphere(2000, 64, 10), noise = normal_rows(2000, 64, 11);
  Tensor states = stored.clone();
  for (int64_t i = 0; i < states.elements(); ++i) states.data()[i] += 0.5f * noise.data()[i];
  const Tensor found = update(states, stored, 1);
  int retrieved = 0;
  for (int64_t i = 0; i < 2000; ++i) retrieved += most_apart(found.slice(i, 1), stored.slice(i, 1)) < 1e-3;
  EXPECT_GE(retrieved, 1980);
}

TEST(SystemsP064, ColdStatesAreThePatternsMean) {
  const Tensor stored = on_sphere(50, 64, 12), found = update(on_sphere(5, 64, 13), stored, 1e-4f);
  for (int64_t c = 0; c < 64; ++c) {
    double mean = 0;
    for (int64_t j = 0; j < 50; ++j) mean += stored.data()[j * 64 + c] / 50.0;
    for (int64_t i = 0; i < 5; ++i) ASSERT_NEAR(found.data()[i * 64 + c], mean, 0.01);
  }
}

// Fixed points: a pattern by itself where beta is large, the mean of near ones at a middling beta.
TEST(SystemsP064, NearPatternsHaveAStateBetweenThem) {
  constexpr int64_t kDim = 64;
  Tensor stored = on_sphere(40, kDim, 14);
  for (int64_t j = 1; j < 4; ++j)  // the first four are near each other
    for (int64_t c = 0; c < kDim; ++c)
      stored.data()[j * kDim + c] = stored.data()[c] + 0.15f * stored.data()[j * kDim + c];
  const auto rests_at = [&](float beta) {
    Tensor r = stored.slice(1, 1).clone();
    for (int i = 0; i < 200; ++i) r = update(r, stored, beta);
    EXPECT_LE(most_apart(update(r, stored, beta), r), 1e-5) << beta;
    return r;
  };
  EXPECT_LE(most_apart(rests_at(20), stored.slice(1, 1)), 1e-3);
  Tensor between = Tensor::zeros({1, kDim});
  for (int64_t j = 0; j < 4; ++j)
    for (int64_t c = 0; c < kDim; ++c) between.data()[c] += stored.data()[j * kDim + c] / 4;
  EXPECT_LE(most_apart(rests_at(0.1f), between), 0.05);
}

// The classical network of signs, W = sum_j x_j x_j^T / d without its diagonal: it holds some 0.14 d patterns.
TEST(SystemsP064, TheClassicalNetworkFailsWhereThisOneDoesNot) {
  constexpr int64_t kDim = 64;
  const auto kept = [&](int64_t count) {  // the part of the patterns that one sweep of signs leaves as they are
    Tensor x = normal_rows(count, kDim, 15);
    for (float& a : x.span()) a = a < 0 ? -1.0f : 1.0f;
    int64_t right = 0;
    for (int64_t i = 0; i < count; ++i) {
      bool same = true;
      for (int64_t a = 0; a < kDim; ++a) {
        double field = 0;
        for (int64_t j = 0; j < count; ++j) {
          double overlap = 0;
          for (int64_t b = 0; b < kDim; ++b)
            if (b != a) overlap += double{x.data()[j * kDim + b]} * x.data()[i * kDim + b];
          field += x.data()[j * kDim + a] * overlap;
        }
        same = same && (field >= 0) == (x.data()[i * kDim + a] > 0);
      }
      right += same;
    }
    return static_cast<double>(right) / static_cast<double>(count);
  };
  EXPECT_GE(kept(3), 0.99);
  EXPECT_LE(kept(24), 0.3);  // 0.375 d
  EXPECT_LE(kept(200), 0.01);
}

TEST(SystemsP064, UpdatesEndWhereAStateRests) {
  const Tensor x = normal_rows(50, 32, 16);
  const auto with = [&](int64_t updates, double tolerance) {
    auto mixer = make_mixer({{"name", "hopfield"}, {"beta", 0.05}, {"updates", updates}, {"tolerance", tolerance}}, 32);
    operation_count() = {};
    const Tensor y = run_alone(*mixer, x);
    return std::pair{y, operation_count().flops};
  };
  const auto [all, all_cost] = with(64, 0);
  const auto [rested, cost] = with(64, 1e-4);
  EXPECT_LE(most_apart(rested, all), 1e-3);
  EXPECT_LT(cost, all_cost / 2);
  EXPECT_EQ(most_apart(with(5, 1e3).first, with(2, 0).first), 0);  // one look at where to go, then the values
}

TEST(SystemsP064, PoolingGivesASequenceWhatItsLearnedStateRetrieves) {
  auto pooling = make_mixer("hopfield_pooling", 32),
       cold = make_mixer({{"name", "hopfield_pooling"}, {"beta", 1e-6}}, 32);
  const Tensor x = normal_rows(40, 32, 17), y = run_alone(*pooling, x, nullptr, Pattern::bidirectional);
  Tensor turned = x.clone();
  for (int64_t t = 0; t < 40; ++t) turned.slice(t, 1).copy_from(x.slice((t * 7 + 3) % 40, 1));
  for (int64_t t = 1; t < 40; ++t) EXPECT_EQ(most_apart(y.slice(t, 1), y.slice(0, 1)), 0);
  EXPECT_LE(most_apart(run_alone(*pooling, turned, nullptr, Pattern::bidirectional), y), 1e-5);
  Tensor mean = Tensor::zeros({1, 32});
  for (int64_t i = 0; i < x.elements(); ++i) mean.data()[i % 32] += x.data()[i] / 40;
  EXPECT_LE(most_apart(run_alone(*cold, x, nullptr, Pattern::bidirectional).slice(0, 1),
                       run_alone(*cold, mean, nullptr, Pattern::bidirectional)),
            1e-4);
}

// Bags of noise, half of which hide one needle, the same direction in all of them; the answer is the sign.
regression::Series bags(int64_t count, const Tensor& needle, Rng rng) {
  constexpr int64_t kBag = 64, kDim = 16;
  regression::Series s = regression::series(count, kBag, kDim, 1, false);
  for (float& a : s.inputs.span()) a = static_cast<float>(rng.normal());
  for (int64_t i = 0; i < count; ++i) {
    s.answers.data()[i] = rng.below(2) ? 1 : -1;
    if (s.answers.data()[i] < 0) continue;
    float* at = s.inputs.data() + (i * kBag + rng.below(kBag)) * kDim;
    for (int64_t c = 0; c < kDim; ++c) at[c] += 6 * needle.data()[c];
  }
  return s;
}
TEST(SystemsP064, TrainedPoolingFindsNeedlesThatAMeanLoses) {
  Tensor needle = on_sphere(1, 16, 18);
  for (float& a : needle.span()) a /= 4;  // of length one
  const auto accuracy_of = [&](double beta) {
    regression::Follower model({.mixer = {{"name", "hopfield_pooling"}, {"beta", beta}},
                                .inputs = 16,
                                .steps = 600,
                                .pattern = Pattern::bidirectional});
    model.train([&](Rng rng) { return bags(32, needle, rng); });
    const regression::Series test = bags(2000, needle, Rng(95));
    NoGrad off;
    const Tensor said = model.answers(test, Context{}).value();
    int64_t right = 0;
    for (int64_t i = 0; i < 2000; ++i) right += (said.data()[i] > 0) == (test.answers.data()[i] > 0);
    return static_cast<double>(right) / 2000;
  };
  const double hopfield = accuracy_of(0), mean = accuracy_of(1e-6);
  std::printf("needles in bags: Hopfield pooling %.1f %%, mean pooling %.1f %%\n", 100 * hopfield, 100 * mean);
  EXPECT_GE(hopfield, mean + 0.10);
}

}  // namespace sennit::systems_p064_test
