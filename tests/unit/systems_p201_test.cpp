// MoBA (Lu et al., arXiv:2502.13189): each query chooses its blocks of keys by their mean.
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "support/planted.h"
#include "support/receptive.h"
#include "support/timing.h"

namespace sennit::systems_p201_test {

Json with(const Json& options) {
  Json part = {{"name", "moba"}};
  part.update(options);
  return part;
}

TEST(SystemsP201, AllBlocksAreDenseAttentionForwardAndBackward) {
  const int64_t n = 300, d = 32;
  const Tensor rows = normal_rows(n, d, 2), dy = normal_rows(n, d, 3);
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Context context;
  const auto run = [&](Mixer& mixer) {
    const Var x = Var::leaf(rows.clone());
    const Var y = mixer.forward(x, {whole, &context});
    backward(y, dy);
    std::vector<Tensor> all = {y.value(), x.grad()};
    mixer.parameters([&](const std::string&, Parameter& p) { all.push_back(p.var.grad()); });
    return all;
  };
  const auto dense = make_mixer({{"name", "softmax"}, {"kv_heads", 2}}, d);
  const auto want = run(*dense);
  for (const int64_t block : {64, 10}) {
    const auto moba = make_mixer(with({{"block", block}, {"top", (n + block - 1) / block}, {"kv_heads", 2}}), d);
    const auto got = run(*moba);
    ASSERT_EQ(got.size(), want.size());
    if (block == 64) {
      EXPECT_EQ(most_apart(got[0], want[0]), 0);
    }
    for (size_t i = 0; i < got.size(); ++i) EXPECT_LE(most_apart(got[i], want[i]), 1e-5) << i;
  }
}

TEST(SystemsP201, ALaterTokenChangesNothingBefore) {
  const auto moba = make_mixer(with({{"block", 8}, {"top", 3}}), 32);
  const Tensor x = normal_rows(100, 32, 2), before = run_alone(*moba, x);
  for (const int64_t t : {5, 40, 63, 64, 99}) {
    Tensor changed = x.clone();
    for (float& v : changed.slice(t, 1).span()) v = 9;
    EXPECT_EQ(t > 0 ? most_apart(run_alone(*moba, changed).slice(0, t), before.slice(0, t)) : 0, 0) << t;
  }
}

TEST(SystemsP201, AQueryReadsItsBlocksAndNoMore) {
  const int64_t n = 600, block = 16, top = 3;
  const auto moba = make_mixer(with({{"block", block}, {"top", top}, {"heads", 1}}), 16);
  const Reads reads = reads_of(*moba, n, 16);
  for (int64_t i = 0; i < n; ++i) {
    const int64_t own = i % block + 1, others = std::min(top - 1, i / block);
    EXPECT_EQ(reads[i].count(), static_cast<size_t>(own + others * block)) << i;
  }
}

TEST(SystemsP201, ItFindsTheBlockThatAQueryAsksFor) {
  // Keys of block 5 lie along one direction, and so does the last query; elsewhere there is noise.
  const int64_t n = 640, block = 32, d = 16;
  const auto moba = make_mixer(with({{"block", block}, {"top", 2}, {"heads", 1}, {"position", "none"}}), d);
  for (const char* name : {"q.weight", "k.weight"}) {
    Tensor identity = Tensor::zeros({d, d});
    for (int64_t i = 0; i < d; ++i) identity.data()[i * d + i] = 1;
    parameter_of(*moba, name).var.value().copy_from(identity);
  }
  Tensor x = normal_rows(n, d, 2);
  for (int64_t t = 5 * block; t < 6 * block; ++t) x.data()[t * d] += 4;
  x.data()[(n - 1) * d] += 4;
  Choices choices;
  moba->choices = &choices;
  run_alone(*moba, x);
  EXPECT_EQ(choices.blocks.at({0, 0, n - 1}), (std::vector<int32_t>{5, 19}));
}

// A model of text that also looks up a note from far back, trained with exact attention and switched, and one trained
// with MoBA from the start; queries see less than a fifth of the keys.
TEST(SystemsP201, TrainedToRecall) {
  constexpr int64_t kLength = 1024, kBlock = 4, kTop = 40;
  static_assert(kBlock * kTop <= kLength / 5);
  const trained::Text text;
  const auto file = [](const Json& mixer) {
    return Json{{"vocab", trained::kPlantedVocab},
                {"d_model", 64},
                {"blocks", {{{"repeat", 2}, {"mixer", mixer}, {"channel", "mlp"}}}}};
  };
  const Json sparse = with({{"block", kBlock}, {"top", kTop}});
  const auto kept = [&](bool all) {
    return trained::planted(text, 16, {.length = kLength, .notes = 1, .distance = 512, .all = all}, Rng(9), true);
  };
  const trained::Rows needles =
      trained::planted(text, 100, {.length = kLength, .notes = 1, .distance = 256, .all = false}, Rng(8));
  const auto train = [&](trained::Trainee& trainee) {
    trainee.train([&](int64_t step, Rng rng) {  // text and questions in turn, short at first
      const bool near = step <= 200, all = step % 2 == 0;
      return near ? trained::planted(text, 16, {.length = 64, .notes = 1, .all = all}, rng)
                  : trained::planted(text, 2, {.length = kLength, .notes = 1, .all = all}, rng);
    });
  };
  const trained::Settings settings{.steps = 700, .rate = 7e-3};
  trained::Trainee full(file("softmax"), settings), switched(file(sparse), settings), scratch(file(sparse), settings);
  train(full), train(scratch);
  trained::copy_weights(full.model(), switched.model());
  const auto tell = [&](const char* name, trained::Trainee& t) {
    const double loss = t.loss(kept(true)), found = t.accuracy(needles);
    std::printf("%s: %.4f nats, %.2f of the notes found\n", name, loss, found);
    return std::pair{loss, found};
  };
  const auto [loss, found] = tell("exact attention", full);
  const auto [switched_loss, switched_found] = tell("switched to MoBA", switched);
  const auto [scratch_loss, scratch_found] = tell("MoBA from the start", scratch);
  EXPECT_GE(found, 0.9);
  EXPECT_LE(switched_loss, 1.01 * loss);
  EXPECT_GE(switched_found, 0.95 * found);
  EXPECT_LE(scratch_loss, 1.02 * loss);
}

TEST(SpeedP201, PrefillIsFasterThanDenseAndNearlyLinear) {
  const int64_t n = 16384, d = 64;
  const auto dense = make_mixer({{"name", "softmax"}, {"heads", 1}}, d),
             moba = make_mixer(with({{"heads", 1}, {"block", 512}, {"top", 3}}), d);
  const Tensor x = normal_rows(n, d, 2), half = normal_rows(n / 2, d, 2);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x); }, [&] { run_alone(*moba, x); });
  std::printf("dense %.3f s, moba %.3f s\n", m.first, m.second);
  EXPECT_GE(m.first / m.second, 2.5);
  const Seconds growth = medians_in_turn(
      5, [&] { run_alone(*moba, half); }, [&] { run_alone(*moba, x); });
  std::printf("8k %.3f s, 16k %.3f s\n", growth.first, growth.second);
  EXPECT_LE(growth.second / growth.first, 2.6);
}

}  // namespace sennit::systems_p201_test
