// Routing Transformer (Roy et al., arXiv:2003.05997): tokens read their own cluster.
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/attention.h"
#include "support/mixer_timing.h"
#include "support/regression.h"

namespace sennit::systems_p133_test {

Json with(const Json& options) {
  Json part = {{"name", "routing"}};
  part.update(options);
  return part;
}

// Dense causal attention of one sequence in which queries are keys, by the engine of softmax attention.
Var dense(Mixer& mixer, const Var& u, int64_t heads) {
  const Var x = layernorm(linear(u, parameter_of(mixer, "q.weight")), {}, {}, {.groups = heads}),
            v = linear(u, parameter_of(mixer, "v.weight"));
  const AttentionSegment whole[] = {{0, u.rows(), 0, 0, u.rows(), 0}};
  const float scale = std::sqrt(static_cast<float>(heads) / static_cast<float>(u.columns()));
  const Var core = attention(x, {&x, 1}, {&v, 1}, whole, {.heads = heads, .kv_heads = heads, .scale = scale});
  return linear(core, parameter_of(mixer, "out.weight"));
}

TEST(SystemsP133, OneClusterIsDenseAttentionForwardAndBackward) {
  const int64_t n = 300, d = 32, heads = 4;
  const Tensor rows = normal_rows(n, d, 2), dy = normal_rows(n, d, 3);
  const auto mixer = make_mixer(with({{"clusters", 1}, {"window", n}, {"local", 0}, {"position", "none"}}), d);
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Context context;
  const auto run = [&](bool own) {
    const Var x = Var::leaf(rows.clone());
    mixer->parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
    const Var y = own ? mixer->forward(x, {whole, &context}) : dense(*mixer, x, heads);
    backward(y, dy);
    std::vector<Tensor> all = {y.value(), x.grad()};
    for (const char* name : {"q.weight", "v.weight", "out.weight"})
      all.push_back(parameter_of(*mixer, name).var.grad().clone());
    return all;
  };
  const auto got = run(true), want = run(false);
  for (size_t i = 0; i < got.size(); ++i) EXPECT_LE(most_apart(got[i], want[i]), 1e-5) << i;
}

TEST(SystemsP133, ALaterTokenChangesNothingBefore) {
  const auto mixer = make_mixer(with({{"clusters", 4}, {"window", 8}}), 32);
  const Tensor x = normal_rows(100, 32, 2), before = run_alone(*mixer, x);
  for (const int64_t t : {1, 5, 40, 63, 64, 99}) {
    Tensor changed = x.clone();
    for (float& v : changed.slice(t, 1).span()) v = 9;
    EXPECT_EQ(most_apart(run_alone(*mixer, changed).slice(0, t), before.slice(0, t)), 0) << t;
  }
}

// A head that is routed reads the last tokens of its own cluster, and no others.
TEST(SystemsP133, ATokenReadsItsCluster) {
  NoGrad off;
  const int64_t n = 120, window = 6;
  const auto mixer = make_mixer(with({{"clusters", 4}, {"window", window}}), 32);
  Choices choices;
  mixer->choices = &choices;
  const Tensor x = normal_rows(n, 32, 2);
  run_alone(*mixer, x);
  const Tensor weights = mixer->implicit(Var(x), Context{})->weights;
  for (int64_t h = 0; h < 4; ++h)
    for (int64_t i = 0; i < n; ++i) {
      int64_t read = 0, could = 0;
      for (int64_t j = i; j >= 0; --j) {
        const bool mate = h < 2 || choices.blocks.at({0, h - 2, i}).front() == choices.blocks.at({0, h - 2, j}).front();
        could += mate;
        const bool reads = weights.data()[(h * n + i) * n + j] != 0;
        EXPECT_EQ(reads, mate && could <= window) << h << " " << i << " " << j;
        read += reads;
      }
      EXPECT_EQ(read, std::min(could, window));
    }
}

// decay mu + (1 - decay) mean of its tokens, in a forward pass that is recorded and of training, and never else.
TEST(SystemsP133, CentroidsAreRunningMeans) {
  const int64_t n = 200, d = 16, clusters = 5;
  const auto mixer =
      make_mixer(with({{"clusters", clusters}, {"local", 0}, {"heads", 1}, {"decay", 0.9}, {"position", "none"}}), d);
  const Tensor x = normal_rows(n, d, 2), before = parameter_of(*mixer, "centroids.mean").value().clone();
  const Segment whole[] = {{0, n, 0, nullptr}};
  Choices choices;
  mixer->choices = &choices;
  const auto run = [&](bool training, bool recorded) {
    const Recording as(recorded);
    const Context context{.training = training};
    mixer->forward(Var(x), {whole, &context});
    return parameter_of(*mixer, "centroids.mean").value().clone();
  };
  EXPECT_EQ(most_apart(run(false, true), before), 0);
  EXPECT_EQ(most_apart(run(true, false), before), 0);
  const Tensor after = run(true, true),
               rows = layernorm(linear(Var(x), parameter_of(*mixer, "q.weight")), {}, {}).value();
  EXPECT_FALSE(parameter_of(*mixer, "centroids.mean").var.grad());
  Tensor want = before.clone();
  for (int64_t c = 0; c < clusters; ++c)
    for (int64_t p = 0; p < d; ++p) {
      double sum = 0, count = 0;
      for (int64_t t = 0; t < n; ++t)
        if (choices.blocks.at({0, 0, t}).front() == c) sum += rows.data()[t * d + p], ++count;
      if (count > 0) want.data()[c * d + p] = static_cast<float>(0.9 * before.data()[c * d + p] + 0.1 * sum / count);
    }
  EXPECT_LE(most_apart(after, want), 1e-6);
}

// Eight planted clusters, and a value for each that tokens learn to say: are the tokens of a centroid of one kind?
TEST(SystemsP133, TrainedClustersArePure) {
  constexpr int64_t kKinds = 8, kDim = 32, kTokens = 256;
  const Tensor centres = normal_rows(kKinds, kDim, 1), values = normal_rows(kKinds, kDim, 2);
  std::vector<int64_t> kinds;
  const auto drawn = [&](Rng rng, Tensor& wanted) {
    Tensor x({kTokens, kDim});
    wanted = Tensor(x.shape()), kinds.clear();
    for (int64_t t = 0; t < kTokens; ++t) {
      kinds.push_back(rng.below(kKinds));
      for (int64_t p = 0; p < kDim; ++p) {
        x.data()[t * kDim + p] = centres.data()[kinds.back() * kDim + p] + 0.3f * static_cast<float>(rng.normal());
        wanted.data()[t * kDim + p] = values.data()[kinds.back() * kDim + p];
      }
    }
    return x;
  };
  const Segment whole[] = {{0, kTokens, 0, nullptr}};
  for (const uint64_t seed : {1, 2, 3}) {
    const auto mixer = make_mixer(with({{"clusters", 16}, {"decay", 0.9}, {"position", "none"}}), kDim, seed);
    train::Descent descent(named_parameters(*mixer), {.steps = 150, .rate = 1e-2, .warmup = 10});
    Tensor wanted;
    const auto purity = [&] {
      NoGrad off;
      Choices choices;
      mixer->choices = &choices;
      run_alone(*mixer, drawn(Rng(99), wanted));
      mixer->choices = nullptr;
      double least = 1;
      for (int64_t h = 0; h < 2; ++h) {
        std::map<int32_t, std::map<int64_t, int64_t>> counts;
        for (int64_t t = 0; t < kTokens; ++t) ++counts[choices.blocks.at({0, h, t}).front()][kinds[t]];
        int64_t most = 0;
        for (const auto& [cluster, of] : counts) {
          int64_t best = 0;
          for (const auto& [kind, count] : of) best = std::max(best, count);
          most += best;
        }
        least = std::min(least, static_cast<double>(most) / kTokens);
      }
      return least;
    };
    const double before = purity();
    for (int64_t step = 1; step <= 150; ++step) {
      const Context context{.training = true};
      const Tensor x = drawn(Rng(seed).fork(static_cast<uint64_t>(step)), wanted);
      const Var apart = mixer->forward(Var(x), {whole, &context}) - Var(wanted);
      descent.step(mean(apart * apart), {}, step);
    }
    const double after = purity();
    std::printf("purity before %.3f, after %.3f\n", before, after);
    EXPECT_GE(after, 0.9);
  }
}

// Sixty-four notes, a key and a value in one token, and each of their keys again in another order: what was the value?
// All heads read the last 16 tokens, or half of them the last 16 of their cluster, at the same cost.
regression::Series notes(Rng rng) {
  constexpr int64_t kSequences = 8, kNotes = 64, kKey = 8, kValue = 2, kInputs = kKey + kValue + 1;
  regression::Series s{
      Tensor::zeros({kSequences * 2 * kNotes, kInputs}), Tensor({kSequences * kNotes, kValue}), {}, {}};
  for (int64_t i = 0; i < kSequences; ++i) {
    const int64_t begin = i * 2 * kNotes;
    s.segments.push_back({begin, 2 * kNotes, 0, nullptr});
    float* const note = s.inputs.data() + begin * kInputs;
    for (int64_t n = 0; n < kNotes; ++n)
      for (int64_t c = 0; c < kKey + kValue; ++c) note[n * kInputs + c] = static_cast<float>(rng.normal());
    const int64_t turn = rng.below(kNotes);
    for (int64_t n = 0; n < kNotes; ++n) {
      const int64_t of = (n * 5 + turn) % kNotes, at = kNotes + n;
      std::copy_n(note + of * kInputs, kKey, note + at * kInputs);
      note[at * kInputs + kInputs - 1] = 1;
      std::copy_n(note + of * kInputs + kKey, kValue, s.answers.data() + (i * kNotes + n) * kValue);
      s.asked.push_back(begin + at);
    }
  }
  return s;
}

TEST(SystemsP133, TrainedToRecallClustersBeatWindows) {
  double error[2];
  for (const bool routed : {false, true}) {
    regression::Follower follower(
        {.mixer =
             with({{"heads", 2}, {"window", 16}, {"local", routed ? 0.5 : 1}, {"clusters", 8}, {"position", "none"}}),
         .inputs = 11,
         .outputs = 2,
         .width = 64,
         .steps = 300});
    follower.train(notes);
    error[routed] = follower.error(notes(Rng(99)));
    std::printf("%s: mean square error %.3f\n", routed ? "clusters and windows" : "windows", error[routed]);
  }
  EXPECT_LT(error[1], 0.8 * error[0]);
}

// With as many clusters as the root of the tokens, and windows of that many.
TEST(SpeedP133, TimeGrowsSlowerThanDense) {
  const auto routed = [](int64_t n) {
    const auto root = std::llround(std::sqrt(static_cast<double>(n)));
    return make_mixer(with({{"clusters", root}, {"window", root}}), 64);
  };
  double xs = 0, ys = 0, xx = 0, xy = 0, points = 0;
  for (const int64_t n : {2048, 4096, 8192, 16384}) {
    const double ratio = processor_ratio(
        5, [mixer = routed(n), x = normal_rows(n, 64, 1)] { run_alone(*mixer, x); },
        [mixer = routed(2048), x = normal_rows(2048, 64, 2)] { run_alone(*mixer, x); });
    const double x = std::log(static_cast<double>(n) / 2048), y = std::log(ratio);
    std::printf("%lld tokens: %.2f times those of 2048\n", static_cast<long long>(n), ratio);
    xs += x, ys += y, xx += x * x, xy += x * y, ++points;
  }
  const double exponent = (points * xy - xs * ys) / (points * xx - xs * xs);
  const double share = time_against(with({{"clusters", 128}, {"window", 128}}), "softmax", 64, 16384);
  std::printf("exponent %.2f; %.3f of dense attention's time at 16384\n", exponent, share);
  EXPECT_LE(exponent, 1.65);
  EXPECT_LE(share, 0.5);
}

}  // namespace sennit::systems_p133_test
