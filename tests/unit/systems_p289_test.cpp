// Laughing Hyena (Massaroli et al., arXiv:2310.18780): long filters as few modes, and Hyena as a recurrence.
#include <gtest/gtest.h>

#include "mixers/gated_convolutions.h"
#include "model/distillation.h"
#include "nn/modes.h"
#include "ops/layout.h"
#include "sequence/long_conv.h"
#include "support/mixer_timing.h"
#include "support/trained.h"

namespace sennit::systems_p289_test {

using Complex = std::complex<double>;

Modes some_modes(int64_t pairs, Rng rng) {
  Modes modes;
  for (int64_t m = 0; m < pairs; ++m) {
    modes.poles.push_back(std::polar(0.7 + 0.28 * rng.uniform(),
                                     M_PI * (static_cast<double>(m) + rng.uniform()) / static_cast<double>(pairs)));
    modes.weights.emplace_back(rng.normal(), rng.normal());
  }
  return modes;
}
std::vector<double> taps_of(const Modes& modes, int64_t count) {
  std::vector<double> h;
  for (int64_t t = 0; t < count; ++t) h.push_back(modes.tap(t));
  return h;
}

TEST(SystemsP289, AFilterOfFewModesIsFoundAgain) {
  for (const int64_t pairs : {1, 3, 8}) {
    Modes made = some_modes(pairs, Rng(3).fork(static_cast<uint64_t>(pairs)));
    if (pairs == 3) made.poles.emplace_back(0.9), made.weights.emplace_back(0.4);  // a real one
    const std::vector<double> h = taps_of(made, 256);
    const Modes found = fit_modes(h, 16);
    ASSERT_EQ(found.order(), made.order());
    for (const Complex& l : made.poles) {
      double nearest = 1;
      for (const Complex& other : found.poles) nearest = std::min(nearest, std::abs(l - other));
      EXPECT_LE(nearest, 1e-6);
    }
    for (int64_t t = 0; t < 1024; ++t) EXPECT_NEAR(found.tap(t), made.tap(t), 1e-6) << pairs << " pairs, tap " << t;
  }
}

// A filter of no small order: what fades is a noise that was smoothed a little.
std::vector<double> rough_filter(int64_t taps) {
  std::vector<double> h;
  Rng rng(5);
  double smooth = 0;
  for (int64_t t = 0; t < taps; ++t) {
    smooth = 0.7 * smooth + rng.normal();
    h.push_back(smooth * std::exp(-4.0 * static_cast<double>(t) / static_cast<double>(taps)));
  }
  return h;
}
// The operator norm of a Hankel matrix, by powers of its square.
double hankel_norm(const std::vector<double>& h) {
  const size_t n = h.size() / 2;
  std::vector<double> x(n, 1);
  x[0] = 2;
  double size = 0;
  for (int round = 0; round < 500; ++round) {
    std::vector<double> y(n);
    for (size_t i = 0; i < n; ++i)
      for (size_t j = 0; j < n; ++j) y[i] += h[1 + i + j] * x[j];
    double squares = 0;
    for (const double v : y) squares += v * v;
    size = std::sqrt(squares);
    for (size_t i = 0; i < n; ++i) x[i] = y[i] / size;
  }
  return size;
}

TEST(SystemsP289, SingularValuesAreThoseOfTheMatrix) {
  const std::vector<double> h = rough_filter(60);
  const std::vector<double> all = hankel_singular_values(h, 30);
  ASSERT_EQ(all.size(), 30u);
  double squares = 0, sum = 0;
  for (const double s : all) sum += s * s;
  for (size_t i = 0; i < 30; ++i)
    for (size_t j = 0; j < 30; ++j) squares += h[1 + i + j] * h[1 + i + j];
  EXPECT_NEAR(sum, squares, 1e-9 * squares);
  EXPECT_NEAR(all[0], hankel_norm(h), 1e-9 * all[0]);
  EXPECT_TRUE(std::is_sorted(all.rbegin(), all.rend()));
}

TEST(SystemsP289, NoOrderIsNearerThanItsBound) {
  const std::vector<double> h = rough_filter(128);
  const std::vector<double> bounds = hankel_singular_values(h, 64);
  double before = INFINITY;
  for (const int64_t order : {1, 2, 4, 8, 16, 32}) {
    const Modes fit = fit_modes(h, order);
    ASSERT_LE(fit.order(), order);
    std::vector<double> apart = h;
    double absolute = 0, squares = 0;
    for (size_t t = 1; t < h.size(); ++t) {
      apart[t] -= fit.tap(static_cast<int64_t>(t));
      absolute += std::fabs(apart[t]), squares += apart[t] * apart[t];
    }
    const double bound = bounds[static_cast<size_t>(order)], norm = hankel_norm(apart);
    EXPECT_GE(norm, bound * (1 - 1e-9)) << order;
    EXPECT_LE(norm, 4 * bound) << order;  // and it comes near
    EXPECT_GE(absolute, bound * (1 - 1e-9)) << order;
    EXPECT_LT(squares, before) << order;
    before = squares;
  }
}

TEST(SystemsP289, AToleranceChoosesTheOrder) {
  const std::vector<double> h = rough_filter(128);
  const std::vector<double> bounds = hankel_singular_values(h, 64);
  const int64_t order = fit_modes(h, 63, 0.05).order();
  ASSERT_LT(order, 63);
  EXPECT_LE(bounds[static_cast<size_t>(order)], 0.05 * bounds[0]);
  EXPECT_GT(bounds[static_cast<size_t>(order - 1)], 0.05 * bounds[0]);
}

std::unique_ptr<Mixer> distilled_mixer(const Distilled& d, int64_t width) {
  auto mixer = make_mixer(json_of(d.mixer), width);
  for (const auto& [name, value] : d.parameters) parameter_of(*mixer, name).var.value().copy_from(value);
  return mixer;
}

TEST(SystemsP289, StepsAreTheConvolutionWithTheModesTaps) {
  NoGrad off;
  constexpr int64_t kWidth = 16, kRows = 300, kFilters = 2;
  auto hyena = make_mixer({{"name", "hyena"}, {"length", 256}, {"filters", kFilters}, {"order", 3}}, kWidth);
  const auto steps = distilled_mixer(*hyena->distilled({.order = 12}), kWidth);
  Tensor taps = Tensor::zeros({kRows, 2 * kFilters});
  const auto number = [&](const char* name, int64_t i) { return double{parameter_of(*steps, name).value().data()[i]}; };
  const int64_t modes = parameter_of(*steps, "rate").value().row_size();
  for (int64_t f = 0; f < 2 * kFilters; ++f)
    for (int64_t t = 0; t < kRows; ++t) {
      double tap = 0;
      for (int64_t i = f * modes; i < (f + 1) * modes; ++i)
        tap += (Complex(number("real", i), number("imaginary", i)) *
                std::exp(static_cast<double>(t) * Complex(-std::exp(number("rate", i)), number("turn", i))))
                   .real();
      taps.data()[t * 2 * kFilters + f] = static_cast<float>(tap);
    }
  const Tensor x = normal_rows(kRows, kWidth, 2);
  const Context context;
  const Segment whole[] = {{0, kRows, 0, nullptr}};
  const Batch batch{whole, &context};
  const Tensor conv =
      dynamic_cast<mixers::GatedConvolutions&>(*steps)
          .gated(Var(x), batch,
                 [&](const Var& z, int64_t n) {
                   const Var h = columns(Var(taps), (n - 1) * kFilters, kFilters);
                   return long_conv(z, repeat_groups(h, kFilters, kWidth / kFilters), batch, static_cast<size_t>(n));
                 })
          .value();
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*steps, x, state), conv), 1e-5);
}

TEST(SystemsP289, MoreModesAreNearer) {
  constexpr int64_t kWidth = 16, kRows = 128;
  auto hyena = make_mixer({{"name", "hyena"}, {"length", kRows}, {"filters", 4}, {"order", 3}}, kWidth);
  const Tensor x = normal_rows(kRows, kWidth, 2), want = run_alone(*hyena, x);
  double apart = 1;
  for (const int64_t order : {8, 24, 56}) {
    const auto d = *hyena->distilled({.order = order});
    const double next = most_apart(run_alone(*distilled_mixer(d, kWidth), x), want);
    EXPECT_LT(next, apart) << order;
    apart = next;
  }
  EXPECT_LE(apart, 0.01);
}

StoredModel stored(Model& model) {
  StoredModel s;
  s.model_file = write_model_spec(model.spec());
  model.parameters([&](const std::string& name, Parameter& p) { s.tensors[name] = io::stored(p.value()); });
  return s;
}

TEST(SystemsP289, OnlyLongConvolutionsAreDistilled) {
  const Json file{
      {"vocab", 20},
      {"d_model", 16},
      {"blocks", {{{"repeat", 2}, {"mixer", {{"name", "hyena"}, {"length", 40}}}}, {{"mixer", "softmax"}}}}};
  Model model(read_model_spec(file, "test"), Rng(1), "test");
  StoredModel s = stored(model);
  const auto before = s.tensors.at("blocks.2.mixer.q.weight").bytes.data();
  const auto report = distill(s, {.order = 6});
  ASSERT_EQ(report.size(), 2u);
  EXPECT_EQ(report[1].block, 1);
  EXPECT_EQ(report[1].to, "laughing_hyena");
  EXPECT_LE(report[1].order, 6);
  EXPECT_EQ(s.tensors.at("blocks.2.mixer.q.weight").bytes.data(), before);
  const auto made = make_model(s);
  EXPECT_LT(made->state_bytes(4000), model.state_bytes(4000));
  EXPECT_EQ(made->state_bytes(4001) - made->state_bytes(4000), 2 * 16 * 4);  // the keys and values of block 2
  StoredModel attention = s;
  EXPECT_THROW(distill(attention, {}), Error);
}

TEST(SystemsP289, TrainedBytesLoseNothing) {
  const trained::Text text;
  const Json block = {{"mixer", {{"name", "hyena"}, {"length", 128}}}, {"channel", "mlp"}};
  trained::Trainee trainee({{"vocab", 256}, {"d_model", 48}, {"blocks", {block, block}}}, {.steps = 400, .rate = 5e-3});
  trainee.train([&](int64_t, Rng rng) { return text.drawn(8, 128, rng); });
  const trained::Rows kept = text.kept(128);
  const double loss = trainee.loss(kept);
  for (const int64_t order : {4, 8, 16}) {
    StoredModel s = stored(trainee.model());
    const auto report = distill(s, {.order = order});
    const auto small = make_model(s);
    NoGrad off;
    const Context context;
    const Var hidden = small->hidden(kept.tokens, {kept.segments, &context});
    const double rise = small->loss(hidden, kept.targets, context).value().data()[0] - loss;
    std::printf("loss %.4f, order %d: %+.5f, filters %.3g off\n", loss, static_cast<int>(order), rise,
                std::max(report[0].left_out, report[1].left_out));
    if (order == 16) {
      EXPECT_LE(rise, 0.01);
    }
  }
}

TEST(SpeedP289, AStepCostsTheSameAnywhereAndATwentiethOfTheFilter) {
  constexpr int64_t kLength = 32768, kWidth = 64;
  const Json small{{"name", "laughing_hyena"}, {"modes", 8}};
  const double growth = step_ratio(small, kWidth, kLength, 1024);
  std::printf("a step after 32k tokens: %.3f times one after 1k\n", growth);
  EXPECT_LE(growth, 1.1);
  EXPECT_GE(growth, 0.9);
  auto hyena = make_mixer({{"name", "hyena"}, {"length", kLength}}, kWidth), modes = make_mixer(small, kWidth);
  SequenceState whole, few;
  run_alone(*hyena, normal_rows(kLength, kWidth, 1), &whole);
  run_alone(*modes, normal_rows(kLength, kWidth, 1), &few);
  const Tensor token = normal_rows(1, kWidth, 3);
  const double ratio = processor_ratio(
      9, [&] { run_alone(*hyena, token, &whole); },
      [&] {
        for (int i = 0; i < 20; ++i) run_alone(*modes, token, &few);
      });
  std::printf("a step with the whole filter costs %.0f steps with 8 modes\n", 20 * ratio);
  EXPECT_GE(20 * ratio, 20);
}

TEST(SpeedP289, APromptTakesNoMoreThanNLogN) {
  const double ratio = time_ratio({{"name", "laughing_hyena"}, {"modes", 8}}, 64, 32768, 4096);
  std::printf("32k tokens take %.2f times 4k\n", ratio);
  EXPECT_LE(ratio, 8 * 15.0 / 12);
}

}  // namespace sennit::systems_p289_test
