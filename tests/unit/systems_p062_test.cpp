// The Extractors (Chen, arXiv:2308.07661): sums over lags with learned weights in the place of attention.
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/count.h"
#include "support/language.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p062_test {

enum Class { kShe, kHe, kWe, kMe };
constexpr Class kClasses[] = {kShe, kHe, kWe, kMe};
Json extractor(Class which, int64_t length) {
  Json part = {{"name", "extractor"}, {"length", length}, {"output", false}, {"values", which == kHe}};
  part["lags"] = which == kShe ? "matrix" : which == kMe ? "scalar" : "vector";
  if (which == kMe) part["heads"] = 1;
  return part;
}

TEST(SystemsP062, ParametersAreThoseOfTheClass) {
  constexpr int64_t d = 32, kLength = 50, kAdjust = d * d + d;
  const auto count = [&](Class which) { return make_mixer(extractor(which, kLength), d)->parameter_count(); };
  EXPECT_EQ(count(kShe), kAdjust + kLength * d * d);
  EXPECT_EQ(count(kHe), kAdjust + kLength * d + d * d);
  EXPECT_EQ(count(kWe), kAdjust + kLength * d);
  EXPECT_EQ(count(kMe), kAdjust + kLength);
}

// Multiplications, each with its addition, of the sums as they are written.
TEST(SystemsP062, ProductsAreThoseOfTheClass) {
  NoGrad off;
  constexpr int64_t d = 32, n = 90, kLength = 50, kPairs = kLength * n - kLength * (kLength - 1) / 2;
  const Context exact{.exact = true};
  const Segment whole[] = {{0, n, 0, nullptr}};
  const auto count = [&](Class which) {
    auto mixer = make_mixer(extractor(which, kLength), d);
    const Var x(normal_rows(n, d, 1));
    const int64_t before = operation_count().flops;
    mixer->forward(x, {whole, &exact});
    return (operation_count().flops - before) / 2;
  };
  constexpr int64_t kMap = n * d * d, kElements = 2 * n * d;  // shares by the place, and the adjustment, at the most
  for (const auto& [which, products] : {std::pair{kShe, kPairs * d * d + kMap},
                                        {kHe, kPairs * d + 2 * kMap},
                                        {kWe, kPairs * d + kMap},
                                        {kMe, kPairs * d + kMap}}) {
    EXPECT_GE(count(which), products) << which;
    EXPECT_LE(count(which), products + kElements) << which;
  }
}

TEST(SystemsP062, ABlockedSumIsTheDirectOne) {
  NoGrad off;
  for (const Class which : {kHe, kWe, kMe}) {
    auto mixer = make_mixer(extractor(which, 1024), 32);
    const Tensor x = normal_rows(900, 32, 7);
    const Context context, exact{.exact = true};
    const Segment whole[] = {{0, 900, 0, nullptr}};
    EXPECT_LE(
        most_apart(mixer->forward(Var(x), {whole, &context}).value(), mixer->forward(Var(x), {whole, &exact}).value()),
        1e-4)
        << which;
  }
}

TEST(SystemsP062, ATokenSeesOnlyWhatCameAndStepsAreTheWhole) {
  for (const Class which : kClasses) {
    auto mixer = make_mixer(extractor(which, 60), 16);
    const Tensor x = normal_rows(150, 16, 2), whole = run_alone(*mixer, x);
    for (const int64_t t : {1, 63, 64, 149}) {
      Tensor changed = x.clone();
      for (float& v : changed.slice(t, 1).span()) v = 9;
      const Tensor y = run_alone(*mixer, changed);
      EXPECT_TRUE(same_numbers(y.slice(0, t), whole.slice(0, t))) << which << " " << t;
      EXPECT_FALSE(same_numbers(y.slice(t, 1), whole.slice(t, 1))) << which << " " << t;
      if (t + 60 < 150) {  // and nothing beyond the table of lags
        EXPECT_LE(most_apart(y.slice(t + 60, 90 - t), whole.slice(t + 60, 90 - t)), 1e-5) << which << " " << t;
      }
    }
    SequenceState state;
    EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), whole), 1e-5) << which;
  }
}

// Models of as many parameters (but SHE): the cheaper a class, the wider its model.
TEST(SystemsP062, TrainedBytes) {
  const trained::Settings settings{.steps = 800, .rate = 5e-3};
  int64_t budget = 0;
  const auto loss = [&](const char* name, const Json& mixer, int64_t width) {
    Json file = trained::two_blocks(mixer, width);
    file["vocab"] = 256;
    const int64_t count = Model(read_model_spec(file, "test"), Rng(1), "test").parameter_count();
    if (!budget) budget = count;
    file.erase("vocab");
    const double nats = trained::text_loss(file, settings);
    std::printf("%s: %.4f nats, %d parameters, width %d\n", name, nats, static_cast<int>(count),
                static_cast<int>(width));
    if (mixer.value("lags", "") != "matrix") {
      EXPECT_LE(count, budget) << name;
    }
    return nats;
  };
  const double attention = loss("attention", trained::kSoftmax, 48);
  loss("SHE", extractor(kShe, 128), 48);
  loss("HE", extractor(kHe, 128), 46);
  EXPECT_LE(loss("WE", extractor(kWe, 128), 48), attention + 0.1);
  EXPECT_LE(loss("ME", extractor(kMe, 128), 54), attention + 0.1);
}

TEST(SpeedP062, TheCheaperClassesAreFasterThanAttention) {
  for (const int64_t n : {128, 256, 512, 1024})
    for (const Class which : {kWe, kMe}) {
      const double ratio = time_against(extractor(which, 1024), "softmax", 64, n);
      std::printf("%s over %d tokens: %.2f of attention's time\n", which == kWe ? "WE" : "ME", static_cast<int>(n),
                  ratio);
      EXPECT_LT(ratio, 1) << which << " " << n;
    }
}

}  // namespace sennit::systems_p062_test
