// SeerAttention (Gao et al., arXiv:2410.13276) and SeerAttention-R (arXiv:2506.08889): a gate distilled from attention
// itself.
#include <gtest/gtest.h>

#include <cstring>

#include "ops/products.h"
#include "optimizers/optimizer.h"
#include "sequence/sparse_attention.h"
#include "support/mixers.h"
#include "support/timing.h"

namespace sennit::systems_p204_test {

Json with(const Json& options) {
  Json part = {{"name", "seer_attention"}};
  part.update(options);
  return part;
}

TEST(SystemsP204, AllBlocksAreDenseAttention) {
  const Tensor x = normal_rows(500, 32, 2);
  const auto dense = make_mixer({{"name", "softmax"}, {"kv_heads", 2}}, 32);
  EXPECT_EQ(most_apart(run_alone(*make_mixer(with({{"kv_heads", 2}}), 32), x), run_alone(*dense, x)), 0);
  const auto small = make_mixer(with({{"kv_heads", 2}, {"block", 20}, {"top", 25}}), 32);
  EXPECT_LE(most_apart(run_alone(*small, x), run_alone(*dense, x)), 1e-5);
}

TEST(SystemsP204, KeysOfTheGateThatAreKeptAreThoseComputedAgain) {
  const Tensor x = normal_rows(333, 32, 2);
  const auto mixer = make_mixer(with({{"block", 16}, {"top", 4}}), 32);
  SequenceState stepped, whole;
  run_stepwise(*mixer, x, stepped);
  run_alone(*mixer, x, &whole);
  ASSERT_EQ(whole.layer(0).get(2).rows(), 20);
  EXPECT_LE(most_apart(stepped.layer(0).get(2).value(), whole.layer(0).get(2).value()), 1e-6);
}

// Some tokens are marks of a kind, strong or weak; as many are the negative of one. Every token asks for a kind. Its
// attention lies on the strongest marks of that kind, which the mean of a block hides and its largest numbers show.
constexpr int64_t kTokens = 1024, kWidth = 64, kBlock = 32, kKinds = 8, kHeads = 2, kDim = 32;
Tensor marked_rows(uint64_t seed) {
  Tensor x = normal_rows(kTokens, kWidth, seed);
  Rng rng(seed);
  for (int64_t t = 0; t < kTokens; ++t) {
    float* row = x.data() + t * kWidth;
    for (int64_t c = 0; c < kWidth; ++c) row[c] *= 0.1f;
    row[rng.below(kKinds)] += 1;  // asked for
    if (rng.uniform() < 0.35)
      row[kKinds + rng.below(kKinds)] += static_cast<float>((2 + 4 * rng.uniform()) * (rng.below(2) ? 1 : -1));
  }
  return x;
}
// Head h takes a mark of one kind for the answer to the question h kinds further on.
void set_maps(Mixer& mixer) {
  Tensor &q = parameter_of(mixer, "q.weight").var.value(), &k = parameter_of(mixer, "k.weight").var.value();
  std::fill(q.span().begin(), q.span().end(), 0.0f);
  std::fill(k.span().begin(), k.span().end(), 0.0f);
  for (int64_t h = 0; h < kHeads; ++h)
    for (int64_t c = 0; c < kKinds; ++c) {
      q.data()[(h * kDim + c) * kWidth + (c + h) % kKinds] = 8;
      k.data()[(h * kDim + c) * kWidth + kKinds + c] = 1;
    }
}

// The share of the eight blocks before a query's own with the largest weight of attention that are chosen when eight
// are.
double recall_of(Mixer& mixer, const Tensor& x, const Tensor& truth) {
  Choices choices;
  mixer.choices = &choices;
  run_alone(mixer, x);
  mixer.choices = nullptr;
  double right = 0, asked = 0;
  const int64_t blocks = truth.shape(2);
  for (int64_t i = 16 * kBlock; i < kTokens; ++i)
    for (int64_t h = 0; h < kHeads; ++h) {
      const float* weights = truth.data() + (i * kHeads + h) * blocks;
      std::vector<std::pair<float, int32_t>> best;
      for (int64_t b = 0; b < i / kBlock; ++b) best.emplace_back(-weights[b], static_cast<int32_t>(b));
      std::partial_sort(best.begin(), best.begin() + 8, best.end());
      const auto& taken = choices.blocks.at({0, h, i});
      for (int n = 0; n < 8; ++n) right += std::binary_search(taken.begin(), taken.end(), best[n].second);
      asked += 8;
    }
  return right / asked;
}

// As the engine collects it in tiles; that it is right is held by sparse_attention_test.
Tensor true_maxima(Mixer& mixer, const Tensor& x) {
  const auto mapped = [&](const char* name) { return linear(Var(x), Var(parameter_of(mixer, name).value())).value(); };
  const Tensor k = mapped("k.weight");
  return block_maxima(mapped("q.weight"), k, k, {0, kTokens, 0, 0, kTokens, 0},
                      {kHeads, kHeads, 1 / std::sqrt(static_cast<float>(kDim))}, kBlock);
}

TEST(SystemsP204, ADistilledGateFindsTheBlocksThatAttentionLikes) {
  const Json options = {{"heads", kHeads}, {"block", kBlock}, {"top", 9}, {"position", "none"}};
  const auto seer = make_mixer(with(options), kWidth);
  Json same = options;
  same["name"] = "moba";
  const auto moba = make_mixer(same, kWidth);
  for (Mixer* m : {seer.get(), moba.get()}) set_maps(*m);

  std::vector<NamedParameter> gate;
  std::vector<Tensor> base;
  seer->parameters([&](const std::string& name, Parameter& p) {
    if (seer->taught(name))
      gate.push_back({name, &p});
    else
      base.push_back(p.value().clone());
  });
  ASSERT_EQ(gate.size(), 2u);

  NoGrad quiet;
  const Tensor asked = marked_rows(1000), truth = true_maxima(*seer, asked);
  const Segment whole[] = {{0, kTokens, 0, nullptr}};
  const double before = recall_of(*seer, asked, truth);
  const auto optimizer =
      optimizers::registry().make(Json{{"name", "adamw"}, {"weight_decay", 0.0}}, {}, Rng(1), "test");
  double first = 0, last = 0;
  for (int64_t step = 1; step <= 80; ++step) {
    Recording on(true);
    std::vector<Var> losses;
    const Context context{.training = true, .losses = &losses};
    for (const auto& p : gate) p.parameter->var.clear_grad();
    seer->forward(Var(marked_rows(static_cast<uint64_t>(step))), {whole, &context});
    ASSERT_EQ(losses.size(), 1u);
    backward(losses[0]);
    last = losses[0].value().data()[0];
    if (step == 1) first = last;
    optimizer->step(gate, {.step = step, .rate = step < 60 ? 0.02 : 0.005, .gradient_scale = 1});
  }
  size_t at = 0;
  seer->parameters([&](const std::string& name, Parameter& p) {
    if (seer->taught(name)) return;
    EXPECT_EQ(std::memcmp(p.value().raw(), base[at].raw(), static_cast<size_t>(base[at].bytes())), 0) << name;
    ++at;
  });
  const double after = recall_of(*seer, asked, truth);
  const double mean_key = recall_of(*moba, asked, truth);
  std::printf("divergence %.3f to %.3f; recall %.3f to %.3f, of mean keys %.3f\n", first, last, before, after,
              mean_key);
  EXPECT_GE(after, 0.85);
  EXPECT_GE(after, mean_key + 0.05);
}

TEST(SpeedP204, PrefillWithTheGateAndSteps) {
  const int64_t n = 16384, d = 64;
  const auto dense = make_mixer({{"name", "softmax"}, {"heads", 1}}, d),
             seer = make_mixer(with({{"heads", 1}, {"top", 14}}), d);
  const Tensor x = normal_rows(n, d, 2), one = normal_rows(1, d, 3), longer = normal_rows(2 * n, d, 4);
  const Seconds m = medians_in_turn(
      3, [&] { run_alone(*dense, x); }, [&] { run_alone(*seer, x); });
  std::printf("prefill: dense %.3f s, seer %.3f s\n", m.first, m.second);
  EXPECT_LE(m.second, m.first / 3);
  const auto tenth = make_mixer(with({{"heads", 1}, {"top", 51}}), d);  // of 512 blocks
  SequenceState a, b;
  run_alone(*dense, longer, &a);
  run_alone(*tenth, longer, &b);
  const auto steps = [&](Mixer& mixer, SequenceState& state) {
    for (int i = 0; i < 64; ++i) run_alone(mixer, one, &state);
  };
  const Seconds s = medians_in_turn(
      15, [&] { steps(*dense, a); }, [&] { steps(*tenth, b); });
  std::printf("64 steps at 32768: dense %.4f s, seer %.4f s\n", s.first, s.second);
  EXPECT_LE(s.second, 0.2 * s.first);
}

}  // namespace sennit::systems_p204_test
