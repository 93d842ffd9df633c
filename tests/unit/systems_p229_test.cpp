// InfLLM-V2 (Zhao et al., arXiv:2509.24663): dense for short sequences, chosen blocks for long ones, with the same
// weights.
#include <gtest/gtest.h>

#include "support/planted.h"
#include "support/receptive.h"
#include "support/timing.h"

namespace sennit::systems_p229_test {

Json with(const Json& options) {
  Json part = {{"name", "infllm_v2"}};
  part.update(options);
  return part;
}

TEST(SystemsP229, ShortSequencesAreDenseToTheBit) {
  const auto dense = make_mixer({{"name", "softmax"}, {"kv_heads", 2}}, 32);
  const auto switched = make_mixer(with({{"kv_heads", 2}, {"top", 4}, {"local", 2}, {"dense", 400}}), 32);
  EXPECT_EQ(dense->parameter_count(), switched->parameter_count());
  for (const int64_t n : {1, 64, 300, 400}) {
    const Tensor x = normal_rows(n, 32, 2);
    EXPECT_EQ(most_apart(run_alone(*switched, x), run_alone(*dense, x)), 0) << n;
  }
  const Tensor x = normal_rows(700, 32, 2);
  const Tensor sparse = run_alone(*switched, x), full = run_alone(*dense, x);
  EXPECT_EQ(most_apart(sparse.slice(0, 400), full.slice(0, 400)), 0);
  EXPECT_GT(most_apart(sparse.slice(400, 300), full.slice(400, 300)), 1e-4);
}

TEST(SystemsP229, AllBlocksAreDenseAttention) {
  const Tensor x = normal_rows(500, 32, 2);
  const auto dense = make_mixer("softmax", 32),
             all = make_mixer(with({{"dense", 0}, {"block", 32}, {"top", 16}, {"local", 2}}), 32);
  EXPECT_LE(most_apart(run_alone(*all, x), run_alone(*dense, x)), 1e-5);
}

TEST(SystemsP229, HeadsOfAGroupChooseTogether) {
  const int64_t n = 400, block = 16;
  const auto mixer = make_mixer(
      with({{"heads", 4}, {"kv_heads", 2}, {"block", block}, {"unit", 4}, {"top", 4}, {"local", 1}, {"dense", 0}}), 32);
  NoGrad off;
  const auto m = mixer->implicit(Var(normal_rows(n, 32, 3)), Context{});
  bool groups_differ = false;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t b = 0; b <= i / block; ++b) {
      const auto seen = [&](int64_t h) { return m->weights.data()[(h * n + i) * n + b * block] != 0; };
      ASSERT_EQ(seen(0), seen(1)) << i << " " << b;
      ASSERT_EQ(seen(2), seen(3)) << i << " " << b;
      groups_differ = groups_differ || seen(0) != seen(2);
    }
  EXPECT_TRUE(groups_differ);
}

// A span of four keys in 16384 looks like the query: its block is among the chosen.
TEST(SystemsP229, ANeedleIsFound) {
  const int64_t n = 16384, d = 64;
  const auto mixer = make_mixer(with({{"heads", 1}, {"dense", 0}, {"position", "none"}}), d);
  for (const char* name : {"q.weight", "k.weight"}) {
    Tensor identity = Tensor::zeros({d, d});
    for (int64_t i = 0; i < d; ++i) identity.data()[i * d + i] = 1;
    parameter_of(*mixer, name).var.value().copy_from(identity);
  }
  Tensor x = normal_rows(n, d, 2);
  Rng rng(9);
  int found = 0;
  constexpr int kNeedles = 100, kSpan = 4;
  Tensor questions({kNeedles, d});
  std::vector<int64_t> needles;
  for (int q = 0; q < kNeedles; ++q) {
    needles.push_back((150 * q + rng.below(100)) / kSpan * kSpan);
    for (int t = 1; t < kSpan; ++t) x.slice(needles.back() + t, 1).copy_from(x.slice(needles.back(), 1));
    for (int64_t c = 0; c < d; ++c) questions.data()[q * d + c] = 3 * x.data()[needles.back() * d + c];
  }
  SequenceState state;
  run_alone(*mixer, x, &state);
  Choices choices;
  mixer->choices = &choices;
  run_alone(*mixer, questions, &state);
  for (int q = 0; q < kNeedles; ++q) {
    const auto& blocks = choices.blocks.at({0, 0, n + q});
    ASSERT_LE(blocks.size(), 32u);
    found += std::binary_search(blocks.begin(), blocks.end(), needles[q] / 64);
  }
  EXPECT_GE(found, 95);
}

TEST(SpeedP229, PrefillAndSteps) {
  const int64_t n = 32768, d = 64;
  const auto dense = make_mixer({{"name", "softmax"}, {"heads", 1}}, d),
             sparse = make_mixer(with({{"heads", 1}, {"dense", 0}}), d);
  const Tensor x = normal_rows(n, d, 2), one = normal_rows(1, d, 3);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x); }, [&] { run_alone(*sparse, x); });
  std::printf("prefill: dense %.3f s, infllm_v2 %.3f s\n", m.first, m.second);
  EXPECT_LE(m.second, m.first / 3);
  SequenceState a, b;
  run_alone(*dense, x, &a);
  run_alone(*sparse, x, &b);
  const auto steps = [&](Mixer& mixer, SequenceState& state) {
    for (int i = 0; i < 64; ++i) run_alone(mixer, one, &state);
  };
  const Seconds s = medians_in_turn(
      15, [&] { steps(*dense, a); }, [&] { steps(*sparse, b); });
  std::printf("64 steps: dense %.4f s, infllm_v2 %.4f s\n", s.first, s.second);
  EXPECT_LE(s.second, s.first / 4);
}

// A model of text trained with exact attention at 1024 tokens, switched to a quarter of its blocks behind the first
// 256.
TEST(SystemsP229, TrainedDenseAndSwitched) {
  const auto file = [](const Json& mixer) {
    return Json{{"vocab", 256}, {"d_model", 64}, {"blocks", {{{"repeat", 2}, {"mixer", mixer}, {"channel", "mlp"}}}}};
  };
  const Json
      dense = file("softmax"),
      sparse = file(
          {{"name", "infllm_v2"}, {"dense", 256}, {"block", 16}, {"unit", 4}, {"top", 16}, {"sink", 1}, {"local", 4}});
  const trained::Text text;
  const trained::Rows kept = text.kept(1024);
  const auto train = [&](trained::Trainee& trainee, uint64_t stream, int64_t short_steps) {
    trainee.train([&](int64_t step, Rng rng) {
      return step <= short_steps ? text.drawn(8, 128, rng) : text.drawn(2, 1024, rng.fork(stream));
    });
    return trainee.loss(kept);
  };
  trained::Trainee first(dense, {.steps = 900, .rate = 1e-2});
  const double exact = train(first, 1, 600);
  const trained::Settings more{.steps = 200, .rate = 1e-3};
  trained::Trainee tuned(sparse, more), still_dense(dense, more);
  trained::copy_weights(first.model(), tuned.model());
  trained::copy_weights(first.model(), still_dense.model());
  const double switched = tuned.loss(kept), after = train(tuned, 2, 0), dense_after = train(still_dense, 2, 0);
  std::printf("dense %.4f nats, switched %+.4f, after 200 steps %+.4f; dense after them %+.4f\n", exact,
              switched - exact, after - exact, dense_after - exact);
  EXPECT_LT(exact, 2);
  EXPECT_GT(std::fabs(switched - exact), 1e-6);
  EXPECT_LE(switched - exact, 0.03);
  EXPECT_LE(after - exact, 0.01);
  EXPECT_LE(after - dense_after, 0.01);
}

}  // namespace sennit::systems_p229_test
