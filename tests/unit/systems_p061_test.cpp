// Stochastically subsampled attention (Hussain et al., arXiv:2306.01705): a part of the keys at each step of training.
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cstring>

#include "ops/count.h"
#include "ops/norms.h"
#include "support/mixers.h"
#include "support/planted.h"
#include "support/timing.h"

namespace sennit::systems_p061_test {

constexpr int64_t kWidth = 32;

Json with(const Json& options) {
  Json part = {{"name", "subsampled"}, {"position", "none"}};
  part.update(options);
  return part;
}

Tensor train_once(Mixer& mixer, const Tensor& x, uint64_t seed, Pattern pattern = Pattern::causal) {
  NoGrad off;
  const Context context{.training = true, .rng = Rng(seed)};
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  return mixer.forward(Var(x), {whole, &context, pattern}).value();
}

TEST(SystemsP061, KeepingEverythingAndInferenceAreDenseToTheBit) {
  const Tensor x = normal_rows(200, kWidth, 2);
  const auto dense = make_mixer({{"name", "softmax"}, {"position", "none"}}, kWidth),
             all = make_mixer(with({{"rate", 1.0}}), kWidth), quarter = make_mixer(with(Json::object()), kWidth);
  const Tensor want = run_alone(*dense, x);
  const Tensor kept = train_once(*all, x, 1), inferred = run_alone(*quarter, x);
  EXPECT_EQ(std::memcmp(kept.raw(), train_once(*dense, x, 1).raw(), static_cast<size_t>(kept.bytes())), 0);
  EXPECT_EQ(std::memcmp(inferred.raw(), want.raw(), static_cast<size_t>(want.bytes())), 0);
  EXPECT_GT(most_apart(train_once(*quarter, x, 1), want), 1e-2);
}

// Against loops in double, with the keys that the layer must have drawn.
TEST(SystemsP061, AStepReadsTheDrawnKeysAndTheNearOnes) {
  const int64_t n = 150, heads = 4, dim = kWidth / heads, window = 5;
  const auto mixer = make_mixer(with({{"window", window}}), kWidth);
  const Tensor x = normal_rows(n, kWidth, 2);
  naive::Weights w;
  mixer->parameters([&](const std::string& name, Parameter& p) {
    naive::Matrix& m = w[name] = naive::Matrix(p.value().rows(), p.value().row_size());
    std::copy(p.value().span().begin(), p.value().span().end(), m.a.begin());
  });
  naive::Matrix rows(n, kWidth);
  std::copy(x.span().begin(), x.span().end(), rows.a.begin());
  const naive::Matrix q = naive::linear(rows, w, "q"), k = naive::linear(rows, w, "k"), v = naive::linear(rows, w, "v");
  for (const Pattern pattern : {Pattern::causal, Pattern::bidirectional})
    for (const uint64_t seed : {1, 2}) {
      const Rng rng = Rng(seed).fork("subsampled").fork(0).fork(0);
      naive::Matrix core(n, kWidth);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t h = 0; h < heads; ++h) {
          std::vector<double> p(n, 0.0);
          double total = 0;
          for (int64_t j = 0; j < n; ++j) {
            if (pattern == Pattern::causal && j > i) continue;
            if (std::abs(i - j) >= window && rng.uniform_at(static_cast<uint64_t>(j)) >= 0.25) continue;
            double s = 0;
            for (int64_t c = 0; c < dim; ++c) s += q(i, h * dim + c) * k(j, h * dim + c);
            total += p[j] = std::exp(s / std::sqrt(static_cast<double>(dim)));
          }
          for (int64_t j = 0; j < n; ++j)
            for (int64_t c = 0; c < dim; ++c) core(i, h * dim + c) += p[j] / total * v(j, h * dim + c);
        }
      const naive::Matrix want = naive::linear(core, w, "out");
      const Tensor got = train_once(*mixer, x, seed, pattern);
      for (int64_t i = 0; i < got.elements(); ++i) ASSERT_NEAR(got.data()[i], want.a[i], 1e-5) << i;
    }
}

TEST(SystemsP061, ScoresAreComputedAtTheRate) {
  const int64_t n = 4096;
  const auto mixer = make_mixer(with({{"heads", 1}}), kWidth);
  const Tensor x = normal_rows(n, kWidth, 2);
  const auto pairs = [&](bool training) {
    operation_count() = {};
    training ? train_once(*mixer, x, 3) : run_alone(*mixer, x);
    return static_cast<double>(operation_count().flops - 8 * n * kWidth * kWidth);
  };
  EXPECT_NEAR(pairs(true) / pairs(false), 0.25, 0.02);
}

TEST(SystemsP061, StepsAndLayersAndSequencesDrawAnew) {
  const auto mixer = make_mixer(with(Json::object()), kWidth);
  const Tensor x = normal_rows(100, kWidth, 2);
  EXPECT_EQ(most_apart(train_once(*mixer, x, 1), train_once(*mixer, x, 1)), 0);
  EXPECT_GT(most_apart(train_once(*mixer, x, 2), train_once(*mixer, x, 1)), 1e-2);
  NoGrad off;
  const Context context{.training = true, .rng = Rng(1)};
  Tensor twice({200, kWidth});
  twice.slice(0, 100).copy_from(x);
  twice.slice(100, 100).copy_from(x);
  const Segment two[] = {{0, 100, 0, nullptr}, {100, 100, 0, nullptr}};
  const Tensor y = mixer->forward(Var(twice), {two, &context}).value();
  EXPECT_GT(most_apart(y.slice(0, 100), y.slice(100, 100)), 1e-2);
  const Batch second = Batch{two, &context}.at(1);
  EXPECT_GT(most_apart(mixer->forward(Var(twice), second).value().slice(0, 100), y.slice(0, 100)), 1e-2);
}

TEST(SpeedP061, AStepTakesLessThanHalf) {
  const int64_t n = 2048, d = 16;  // narrow, so that attention is what takes the time
  const Tensor x = normal_rows(n, d, 2), dy = normal_rows(n, d, 3);
  const auto step = [&](Mixer& mixer) {
    const Context context{.training = true, .rng = Rng(1)};
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Var in = Var::leaf(x);
    backward(mixer.forward(in, {whole, &context}), dy);
    mixer.parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
  };
  const Json options = {{"heads", 4}, {"head_dim", 64}, {"position", "none"}};
  Json dense_options = options;
  dense_options["name"] = "softmax";
  const auto dense = make_mixer(dense_options, d), sparse = make_mixer(with(options), d);
  const Seconds m = medians_in_turn(
      15, [&] { step(*dense); }, [&] { step(*sparse); });
  std::printf("dense %.4f s, subsampled %.4f s\n", m.first, m.second);
  EXPECT_LE(m.second, 0.4 * m.first);
}

// Nats of the mean of the probabilities that 1, 2, 4, ... of 16 passes give, each group of passes by itself and then
// the mean over groups.
std::vector<double> ensembles(Model& model, const trained::Rows& rows) {
  NoGrad off;
  constexpr size_t kPasses = 16;
  std::vector<std::vector<double>> chances;  // of what came next, by pass
  for (uint64_t pass = 1; pass <= kPasses; ++pass) {
    const Context context{.training = true, .rng = Rng(pass)};
    const Tensor p = softmax(model.logits(model.hidden(rows.tokens, {rows.segments, &context}), context)).value();
    chances.emplace_back();
    for (size_t t = 0; t < rows.targets.size(); ++t)
      chances.back().push_back(p.data()[static_cast<int64_t>(t) * p.row_size() + rows.targets[t]]);
  }
  std::vector<double> losses;
  for (size_t size = 1; size <= kPasses; size *= 2) {
    double sum = 0;
    for (size_t first = 0; first < kPasses; first += size)
      for (size_t t = 0; t < rows.targets.size(); ++t) {
        double mean = 0;
        for (size_t pass = first; pass < first + size; ++pass) mean += chances[pass][t] / static_cast<double>(size);
        sum -= std::log(mean) * static_cast<double>(size) / kPasses;
      }
    losses.push_back(sum / static_cast<double>(rows.targets.size()));
  }
  return losses;
}

// A quarter of the pairs of 512 tokens: 32 keys near, and an eighth of those further off.
TEST(SystemsP061, TrainedOnAQuarterAndReadWhole) {
  const auto file = [](double rate) {
    const Json mixer = {{"name", "subsampled"}, {"rate", rate}, {"window", 32}};
    return Json{{"vocab", 256}, {"d_model", 64}, {"blocks", {{{"repeat", 2}, {"mixer", mixer}, {"channel", "mlp"}}}}};
  };
  const trained::Text text;
  const trained::Rows kept = text.kept(512);
  const auto train = [&](trained::Trainee& trainee) {
    trainee.train([&](int64_t, Rng rng) { return text.drawn(2, 512, rng); });
    return trainee.loss(kept);
  };
  const trained::Settings settings{.steps = 700, .rate = 1e-2};
  trained::Trainee dense(file(1), settings), sampled(file(0.125), settings),
      tuned(file(1), {.steps = 150, .rate = 3e-3, .seed = 2});
  const double whole = train(dense), quarter = train(sampled);
  trained::copy_weights(sampled.model(), tuned.model());
  const double after = train(tuned);
  std::printf("dense %.4f nats, a quarter %+.4f, and after 150 dense steps %+.4f\n", whole, quarter - whole,
              after - whole);
  EXPECT_LE(quarter, whole + 0.05);
  EXPECT_LE(after, whole);
  const std::vector<double> losses = ensembles(sampled.model(), text.kept(512, 8));
  std::printf("1, 2, 4, 8 and 16 passes: %s nats\n", fmt::format("{:.4f}", fmt::join(losses, ", ")).c_str());
  for (size_t i = 1; i < losses.size(); ++i) EXPECT_LT(losses[i], losses[i - 1]);
}

}  // namespace sennit::systems_p061_test
