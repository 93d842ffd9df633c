// Gated linear attention (Yang et al., arXiv:2312.06635): its forms agree over long sequences and under violent gates.
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "kernels/gla.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/attention.h"
#include "sequence/recurrences.h"
#include "support/timing.h"
#include "support/trained.h"

namespace sennit::systems_p049_test {

constexpr int64_t kTokens = 4096, kDim = 16;

Tensor draw(int64_t rows, int64_t columns, uint64_t seed) {
  Tensor t({rows, columns});
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(rng.normal());
  return t;
}

// Gates between 1e-3 and 1, most of them near 1.
Tensor gates(int64_t rows, int64_t columns) {
  Tensor g({rows, columns});
  Rng rng(9);
  for (float& x : g.span()) x = static_cast<float>(std::log(1e-3) * std::pow(rng.uniform(), 6));
  return g;
}

Var run(const Var& q, const Var& k, const Var& v, const Var& g, bool exact, int64_t heads = 1) {
  const Context context{.exact = exact};
  const Segment whole[] = {{0, q.rows(), 0, nullptr}};
  return gla(q, k, v, g, {whole, &context},
             {.heads = heads, .scale = 1 / std::sqrt(static_cast<float>(q.columns() / heads))});
}

double most_apart(const Tensor& a, const std::vector<double>& b) {
  double most = 0, size = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    most = std::max(most, std::fabs(a.data()[i] - b[static_cast<size_t>(i)]));
    size = std::max(size, std::fabs(b[static_cast<size_t>(i)]));
  }
  return most / size;
}
std::vector<double> doubles(const Tensor& t) {
  return {t.data(), t.data() + t.elements()};
}

TEST(SystemsP049, FormsAgree) {
  NoGrad off;
  const Tensor q = draw(kTokens, kDim, 1), k = draw(kTokens, kDim, 2), v = draw(kTokens, kDim, 3),
               g = gates(kTokens, kDim);
  const Tensor chunked = run(Var(q), Var(k), Var(v), Var(g), false).value();
  const Tensor recurrent = run(Var(q), Var(k), Var(v), Var(g), true).value();
  // The parallel form: y_i = sum_j (q_i . (exp(G_i - G_j) k_j)) v_j with G the sums of the log gates.
  std::vector<double> sums(doubles(g)), y(static_cast<size_t>(kTokens * kDim));
  for (int64_t i = kDim; i < kTokens * kDim; ++i) sums[static_cast<size_t>(i)] += sums[static_cast<size_t>(i - kDim)];
  for (int64_t i = 0; i < kTokens; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double s = 0;
      for (int64_t c = 0; c < kDim; ++c)
        s += double{q.data()[i * kDim + c]} * k.data()[j * kDim + c] *
             std::exp(sums[static_cast<size_t>(i * kDim + c)] - sums[static_cast<size_t>(j * kDim + c)]);
      for (int64_t c = 0; c < kDim; ++c)
        y[static_cast<size_t>(i * kDim + c)] += s * v.data()[j * kDim + c] / std::sqrt(double{kDim});
    }
  EXPECT_LE(most_apart(recurrent, y), 1e-5);
  EXPECT_LE(most_apart(chunked, y), 1e-5);
}

// Gradients in double: for S_t = diag(a_t) S_{t-1} + k_t v_t^T the gradient R_t of S_t runs backwards.
TEST(SystemsP049, GradientsAgree) {
  const Var q = Var::leaf(draw(kTokens, kDim, 1)), k = Var::leaf(draw(kTokens, kDim, 2)),
            v = Var::leaf(draw(kTokens, kDim, 3));
  const Var g = Var::leaf(gates(kTokens, kDim));
  const Tensor dy = draw(kTokens, kDim, 4);
  backward(run(q, k, v, g, false), dy);
  const auto at = [](const Tensor& t, int64_t i, int64_t c) { return double{t.data()[i * kDim + c]}; };
  const double scale = 1 / std::sqrt(double{kDim});
  std::vector<double> states(static_cast<size_t>((kTokens + 1) * kDim * kDim)), back(kDim * kDim);
  std::vector<double> dq(static_cast<size_t>(kTokens * kDim)), dk(dq), dv(dq), dg(dq);
  const auto state = [&](int64_t t, int64_t p, int64_t c) -> double& {
    return states[static_cast<size_t>(((t + 1) * kDim + p) * kDim + c)];
  };
  for (int64_t t = 0; t < kTokens; ++t)
    for (int64_t p = 0; p < kDim; ++p)
      for (int64_t c = 0; c < kDim; ++c) {
        state(t, p, c) = std::exp(at(g.value(), t, p)) * state(t - 1, p, c) + at(k.value(), t, p) * at(v.value(), t, c);
        dq[static_cast<size_t>(t * kDim + p)] += scale * at(dy, t, c) * state(t, p, c);
      }
  for (int64_t t = kTokens - 1; t >= 0; --t)
    for (int64_t p = 0; p < kDim; ++p)
      for (int64_t c = 0; c < kDim; ++c) {
        double& r = back[static_cast<size_t>(p * kDim + c)];
        const double a = std::exp(at(g.value(), t, p));
        r += scale * at(q.value(), t, p) * at(dy, t, c);
        dk[static_cast<size_t>(t * kDim + p)] += r * at(v.value(), t, c);
        dv[static_cast<size_t>(t * kDim + c)] += r * at(k.value(), t, p);
        dg[static_cast<size_t>(t * kDim + p)] += r * a * state(t - 1, p, c);
        r *= a;
      }
  EXPECT_LE(most_apart(q.grad(), dq), 1e-5);
  EXPECT_LE(most_apart(k.grad(), dk), 1e-5);
  EXPECT_LE(most_apart(v.grad(), dv), 1e-5);
  EXPECT_LE(most_apart(g.grad(), dg), 1e-4);
}

TEST(SystemsP049, OlderFormsAreSettings) {
  NoGrad off;
  const int64_t n = 100;
  const Var q(draw(n, kDim, 1)), k(draw(n, kDim, 2)), v(draw(n, kDim, 3));
  const Tensor plain = run(q, k, v, {}, true).value(), ones = run(q, k, v, Var(Tensor::zeros({n, kDim})), true).value();
  EXPECT_EQ(most_apart(ones, doubles(plain)), 0);
  const Tensor one = gates(n, 1);
  const Tensor retention = run(q, k, v, Var(one), true).value(),
               spread = run(q, k, v, repeat_groups(Var(one), 1, kDim), true).value();
  EXPECT_EQ(most_apart(spread, doubles(retention)), 0);
}

TEST(SpeedP049, FasterThanSoftmaxOnLongSequences) {
  NoGrad off;
  const int64_t heads = 4, width = heads * 64;
  const Var q(draw(kTokens, width, 1)), k(draw(kTokens, width, 2)), v(draw(kTokens, width, 3)),
      g(gates(kTokens, width));
  const AttentionSegment all[] = {{0, kTokens, 0, 0, kTokens, 0}};
  const double linear = seconds_of(3, [&] { run(q, k, v, g, false, heads); });
  const double softmax = seconds_of(3, [&] {
    attention(q, std::span(&k, 1), std::span(&v, 1), all, {.heads = heads, .kv_heads = heads, .scale = 0.125f});
  });
  EXPECT_LT(linear, softmax);
}

TEST(SystemsP049, TrainedOnTextItsGatesHelp) {
  const auto file = [](const Json& mixer) {
    const Json block = {{"mixer", mixer}, {"channel", "mlp"}};
    return Json{{"vocab", 256}, {"d_model", 64}, {"blocks", {block, block}}};
  };
  const trained::Text text;
  const auto trainee = [&](const Json& mixer) {
    auto made = std::make_unique<trained::Trainee>(file(mixer), trained::Settings{.steps = 600});
    made->train([&](int64_t, Rng rng) { return text.drawn(4, 256, rng); });
    return made;
  };
  const auto gated = trainee("gla"), sum = trainee({{"name", "gla"}, {"decay", "none"}}),
             attention = trainee("softmax");
  const trained::Rows near = text.kept(256, 64), far = text.kept(2048, 8);  // the same bytes
  const double ours = gated->loss(near), long_ours = gated->loss(far), ungated = sum->loss(near),
               softmax = attention->loss(near);
  std::printf("nats a byte: gated %.3f (2048 bytes: %.3f), ungated %.3f, softmax %.3f\n", ours, long_ours, ungated,
              softmax);
  EXPECT_LE(ours, ungated - 0.05);
  EXPECT_LE(ours, softmax + 0.08);
  EXPECT_LE(long_ours, ours + 0.05);
}

}  // namespace sennit::systems_p049_test
