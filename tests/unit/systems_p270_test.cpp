// GateLoop (Katsch, arXiv:2311.01927): its three forms, the older methods that are its special cases, and what decays
// that depend on the data are for.
#include <gtest/gtest.h>

#include "base/parallel.h"
#include "ops/arithmetic.h"
#include "ops/products.h"
#include "sequence/recurrences.h"
#include "sequence/rotary.h"
#include "support/mixers.h"
#include "support/timing.h"
#include "support/trained.h"

namespace sennit::systems_p270_test {

constexpr int64_t kDim = 32, kHeads = 4, kHeadDim = kDim / kHeads;

Var part(Mixer& mixer, const Tensor& x, const char* name) {
  return matmul(Var(x), parameter_of(mixer, name), {.transpose_b = true});
}
// A decay of the same size at every token.
void set_size(Mixer& mixer, float logit) {
  parameter_of(mixer, "size.weight").var.value().fill(0);
  parameter_of(mixer, "size.bias").var.value().fill(logit);
}
void expect_core(Mixer& mixer, const Tensor& x, const Var& core) {
  EXPECT_LE(most_apart(run_alone(mixer, x), mixer.output(Var(x), core, Context{}).value()), 1e-5);
}
// That the mixer is linear attention with this decay [N, heads], or none.
void expect_linear_attention(Mixer& mixer, const Tensor& x, const Var& log_decay) {
  const Context c;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  expect_core(mixer, x,
              gla(part(mixer, x, "q.weight"), part(mixer, x, "k.weight"), part(mixer, x, "v.weight"), log_decay,
                  {whole, &c}, {.heads = kHeads, .scale = 1 / std::sqrt(float{kHeadDim})}));
}

TEST(SystemsP270, DecaysOfOneAreLinearAttention) {
  NoGrad off;
  const Tensor x = normal_rows(120, kDim, 11);
  auto mixer = make_mixer({{"name", "gateloop"}, {"phase", false}}, kDim);
  set_size(*mixer, 60);
  expect_linear_attention(*mixer, x, {});
}

TEST(SystemsP270, ConstantRealDecaysAreRetention) {
  NoGrad off;
  const Tensor x = normal_rows(120, kDim, 13);
  auto mixer = make_mixer({{"name", "gateloop"}, {"phase", false}}, kDim);
  set_size(*mixer, 3);
  expect_linear_attention(*mixer, x, Var(Tensor::full({120, kHeads}, static_cast<float>(-std::log1p(std::exp(-3.0))))));
}

// Constant turns of size one: queries and keys are real numbers, that is pairs with 0, and turn as in RoFormer.
TEST(SystemsP270, ConstantTurnsAreRotaryLinearAttention) {
  NoGrad off;
  const int64_t n = 120;
  const Tensor x = normal_rows(n, kDim, 14);
  auto mixer = make_mixer("gateloop", kDim);
  set_size(*mixer, 60);
  parameter_of(*mixer, "turn.weight").var.value().fill(0);
  double turns[kHeadDim];
  for (int64_t c = 0; c < kDim; ++c) {
    turns[c % kHeadDim] = std::pow(0.6, static_cast<double>(c % kHeadDim));
    parameter_of(*mixer, "turn.bias").var.value().data()[c] = static_cast<float>(turns[c % kHeadDim]);
  }
  const Context c;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const auto turned = [&](const char* name) {
    Tensor pairs = Tensor::zeros({n, 2 * kDim});
    const Tensor y = part(*mixer, x, name).value();
    for (int64_t i = 0; i < n * kDim; ++i) pairs.data()[2 * i] = y.data()[i];
    return rotary(Var(pairs), whole,
                  {.heads = kHeads, .dims = 2 * kHeadDim, .interleaved = true, .frequencies = turns});
  };
  expect_core(*mixer, x,
              gla(turned("q.weight"), turned("k.weight"), part(*mixer, x, "v.weight"), {}, {whole, &c},
                  {.heads = kHeads, .scale = 1 / std::sqrt(float{kHeadDim})}));
}

// Chunks (whose products of decays are sums of logarithms), one token after another, and the surrogate attention,
// sum_j Re(q_i (A_i / A_j) k_j) v_j with A the products of all decays so far: here in double, for every 64th query.
TEST(SystemsP270, ThreeFormsAgreeOverEightThousandTokens) {
  NoGrad off;
  constexpr int64_t kRows = 8192, kWidth = 8;
  auto mixer = make_mixer({{"name", "gateloop"}, {"heads", 2}}, kWidth);
  const Tensor x = normal_rows(kRows, kWidth, 15), whole = run_alone(*mixer, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-4);
  const auto map = [&](const char* name) { return part(*mixer, x, name).value(); };
  const Tensor q = map("q.weight"), k = map("k.weight"), v = map("v.weight"), size = map("size.weight"),
               turn = map("turn.weight");
  const Tensor &size_bias = parameter_of(*mixer, "size.bias").value(),
               &turn_bias = parameter_of(*mixer, "turn.bias").value();
  std::vector<double> fades, angles;  // running sums
  for (int64_t i = 0; i < kRows * kWidth; ++i) {
    const size_t before = static_cast<size_t>(i - kWidth);
    const double logit = double{size.data()[i]} + size_bias.data()[i % kWidth];
    fades.push_back((i < kWidth ? 0 : fades[before]) - std::log1p(std::exp(-logit)));
    angles.push_back((i < kWidth ? 0 : angles[before]) + turn.data()[i] + turn_bias.data()[i % kWidth]);
  }
  constexpr int64_t kHead = kWidth / 2;
  Tensor core = Tensor::zeros({kRows / 64, kWidth}), asked({kRows / 64, kWidth}), said({kRows / 64, kWidth});
  for (int64_t r = 0; r < kRows / 64; ++r) {
    const int64_t i = 64 * r + 63;
    asked.slice(r, 1).copy_from(x.slice(i, 1)), said.slice(r, 1).copy_from(whole.slice(i, 1));
    std::vector<double> sums(kWidth);
    for (int64_t j = 0; j <= i; ++j)
      for (int64_t p = 0; p < kWidth; ++p) {
        const auto a = static_cast<size_t>(i * kWidth + p), b = static_cast<size_t>(j * kWidth + p);
        const double weight = double{q.data()[a]} * k.data()[b] * std::exp(fades[a] - fades[b]) *
                              std::cos(angles[a] - angles[b]) / std::sqrt(double{kHead});
        for (int64_t e = 0; e < kHead; ++e)
          sums[static_cast<size_t>(p / kHead * kHead + e)] += weight * v.data()[j * kWidth + p / kHead * kHead + e];
      }
    for (int64_t e = 0; e < kWidth; ++e) core.data()[r * kWidth + e] = static_cast<float>(sums[static_cast<size_t>(e)]);
  }
  EXPECT_LE(most_apart(mixer->output(Var(asked), Var(core), Context{}).value(), said), 1e-4);
}

TEST(SystemsP270, ManyTurnsLoseNothing) {
  auto mixer = make_mixer("gateloop", kDim);
  for (float& b : parameter_of(*mixer, "turn.bias").var.value().span()) b = 1.7f;
  const Tensor x = normal_rows(4000, kDim, 12), whole = run_alone(*mixer, x);
  for (const float y : whole.span()) ASSERT_TRUE(std::isfinite(y));
  SequenceState state;
  run_alone(*mixer, x.slice(0, 3000).clone(), &state);
  EXPECT_LE(most_apart(run_alone(*mixer, x.slice(3000, 1000).clone(), &state), whole.slice(3000, 1000)), 1e-4);
  EXPECT_LE(std::fabs(state.layer(0).get(1).value().data()[0]), M_PI + 1e-6);
}

// A horizon that the data sets: how many ones came since the last reset (7 stands for more).
double horizon_accuracy(const Json& mixer) {
  Json block = mixer;
  block["channel"] = "mlp";
  trained::Trainee trainee({{"vocab", 8}, {"d_model", kDim}, {"blocks", {block}}}, {.steps = 1200, .rate = 1e-2});
  const auto rows = [](Rng rng) {
    constexpr int32_t kReset = 0, kOne = 1, kBlank = 2;
    trained::Rows r;
    for (int sequence = 0; sequence < 4; ++sequence) {
      std::vector<int32_t> tokens, targets;
      for (int32_t t = 0, ones = 0; t < 128; ++t) {
        const double draw = rng.uniform();
        tokens.push_back(t == 0 || draw < 0.08 ? kReset : draw < 0.36 ? kOne : kBlank);
        ones = tokens.back() == kReset ? 0 : std::min(7, ones + (tokens.back() == kOne));
        targets.push_back(ones);
      }
      r.add(tokens, targets);
    }
    return r;
  };
  trainee.train([&](int64_t, Rng rng) { return rows(rng); });
  double right = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) right += trainee.accuracy(rows(Rng(1000 + seed))) / 8;
  return right;
}
TEST(SystemsP270, TrainedToForgetWhatCameBeforeAReset) {
  const double data = horizon_accuracy({{"mixer", "gateloop"}, {"heads", 4}}),
               fixed = horizon_accuracy({{"mixer", "gla"}, {"heads", 4}, {"decay", "fixed"}, {"expand_k", 1}});
  std::printf("accuracy: decays of the data %.3f, fixed ones %.3f\n", data, fixed);
  EXPECT_GE(data, 0.95);
  EXPECT_LE(fixed, 0.70);
}

TEST(SystemsP270, SpeedTwoThreadsShareAScan) {
  NoGrad off;
  const int64_t n = 8192, heads = 8, width = heads * 64;
  const Context c;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Var q(normal_rows(n, width, 1)), k(normal_rows(n, width, 2)), v(normal_rows(n, width, 3)),
      g(Tensor::full({n, width}, -0.1f));
  const int before = thread_count();
  const auto with = [&](int threads) {
    return [&, threads] {
      set_thread_count(threads);
      gla(q, k, v, g, {whole, &c}, {.heads = heads});
    };
  };
  double one = 1e30, two = 1e30;  // the shortest of all, in turn: what else the machine does only adds
  for (int round = 0; round < 15; ++round)
    one = std::min(one, seconds_of(1, with(1))), two = std::min(two, seconds_of(1, with(2)));
  set_thread_count(before);
  EXPECT_GE(one / two, 1.6) << one << " s on one thread, " << two << " s on two";
}

}  // namespace sennit::systems_p270_test
