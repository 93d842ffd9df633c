// AFT (Zhai et al., arXiv:2105.14103): its four forms are one sum, its weights are a softmax of every channel, large
// keys overflow nothing, and time and memory are those of a few numbers a token.
#include <gtest/gtest.h>

#include "support/language.h"
#include "support/mixer_timing.h"

namespace sennit::systems_p305_test {

constexpr int64_t kDim = 32;

const Json kSimple = {{"name", "latte"}, {"latents", 1}, {"channelwise", true}, {"gate", true}};
const Json kConv = {{"name", "aft"}, {"window", 7}}, kLocal = {{"name", "aft"}, {"window", 7}, {"rank", 6}},
           kFull = {{"name", "aft"}, {"window", 256}, {"rank", 6}, {"length", 256}};

const char* weights_of(const Json& part) {
  return part.contains("rank") ? "readers" : "distances";
}
// AFT-simple names its gate what the other forms name their query.
void copy_maps(Mixer& from, Mixer& to, bool simple) {
  for (const std::string name : {"q", "k", "v", "out"})
    parameter_of(to, (simple && name == "q" ? "gate" : name) + ".weight")
        .var.value()
        .copy_from(parameter_of(from, name + ".weight").value());
}

TEST(SystemsP305, TheSimpleFormIsARecurrenceAndTheFullOneWithoutWeights) {
  auto simple = make_mixer(kSimple, kDim);
  const Tensor x = normal_rows(150, kDim, 13), parallel = run_alone(*simple, x);
  SequenceState state;
  EXPECT_LE(most_apart(run_stepwise(*simple, x, state), parallel), 1e-6);
  for (const Json& part : {kConv, kLocal, kFull}) {
    auto other = make_mixer(part, kDim, 2);
    parameter_of(*other, weights_of(part)).var.value().fill(0);
    copy_maps(*other, *simple, true);
    EXPECT_LE(most_apart(run_alone(*other, x), run_alone(*simple, x)), 1e-5) << json_text(part);
  }
}

// Far tokens stand in one running mean, near ones beside it: the same as the full form with weights of 0 where the mask
// says so, here as a square of weights for every channel, in double.
TEST(SystemsP305, LocalAndConvolutionalFormsAreTheFullOneMasked) {
  const Tensor x = normal_rows(150, kDim, 13);
  for (const Json& part : {kConv, kLocal, kFull}) {
    auto mixer = make_mixer(part, kDim);
    for (float& w : parameter_of(*mixer, weights_of(part)).var.value().span()) w *= 8;
    const Tensor y = run_alone(*mixer, x);
    EXPECT_LE(most_apart(y, run_square(*mixer, x)), 1e-5) << json_text(part);
    SequenceState state;
    EXPECT_LE(most_apart(run_stepwise(*mixer, x, state), y), 1e-5) << json_text(part);
  }
}

// A window of pairs whose weights are those of distances is the convolutional form, and the full form masked by hand
// the local one.
TEST(SystemsP305, PairsThatKnowOnlyTheirDistanceAreTheConvolution) {
  const int64_t n = 60;
  auto conv = make_mixer({{"name", "aft"}, {"heads", 1}, {"window", 5}}, kDim),
       pairs = make_mixer({{"name", "aft"}, {"heads", 1}, {"window", n}, {"rank", n}, {"length", n}}, kDim);
  copy_maps(*conv, *pairs, false);
  const Tensor& w = parameter_of(*conv, "distances").value();
  Tensor &readers = parameter_of(*pairs, "readers").var.value(), &read = parameter_of(*pairs, "read").var.value();
  readers.fill(0), read.fill(0);
  for (int64_t t = 0; t < n; ++t) {
    read.data()[t * n + t] = 1;
    for (int64_t s = std::max<int64_t>(0, t - 4); s <= t; ++s) readers.data()[t * n + s] = w.data()[t - s];
  }
  const Tensor x = normal_rows(n, kDim, 14);
  EXPECT_LE(most_apart(run_alone(*pairs, x), run_alone(*conv, x)), 1e-5);
}

TEST(SystemsP305, WeightsOfAChannelSumToOne) {
  for (const Json& part : {kSimple, kConv, kLocal, kFull}) expect_rows_of_weights(part);
}

// Keys in sixteenths, so that 200 more is exact: only differences of logits matter, and large ones overflow nothing.
TEST(SystemsP305, AShiftOfTheKeysChangesNothing) {
  for (const Json& part : {kSimple, kConv, kLocal, kFull}) {
    auto mixer = make_mixer(part, kDim);
    Tensor x({90, kDim});
    Rng rng(3);
    for (float& a : x.span()) a = static_cast<float>(rng.below(5) - 2) / 4;
    for (int64_t t = 0; t < 90; ++t) x.data()[t * kDim] = 1;  // its weights are shifts
    Tensor& k = parameter_of(*mixer, "k.weight").var.value();
    for (float& a : k.span()) a = std::round(a * 8) / 8;
    const Tensor before = run_alone(*mixer, x);
    for (int64_t i = 0; i < k.rows(); ++i) k.data()[i * kDim] += 200;
    parameter_of(*mixer, "k.weight");  // changed
    EXPECT_LE(most_apart(run_alone(*mixer, x), before), 1e-5) << json_text(part);
  }
}

TEST(SystemsP305, MemoryIsLinear) {
  for (Json part : {kSimple, Json{{"name", "aft"}, {"window", 32}},
                    Json{{"name", "aft"}, {"window", 32}, {"rank", 16}, {"length", 8192}},
                    Json{{"name", "aft"}, {"window", 8192}, {"rank", 16}, {"length", 8192}}}) {
    const bool full = part.value("window", 0) > 32;
    const auto peak = [&](int64_t n) {
      if (full) part["window"] = n;
      auto mixer = make_mixer(part, 16);
      const Tensor x = normal_rows(n, 16, 2);
      reset_memory_peak();
      const int64_t base = memory_counters().live;
      run_alone(*mixer, x);
      return static_cast<double>(memory_counters().peak - base);
    };
    EXPECT_LE(full ? peak(2048) / peak(512) : peak(8192) / peak(2048), 4.4) << json_text(part);
  }
}

TEST(SystemsP305, PositionsBeyondTheWeightsAreRefused) {
  auto mixer = make_mixer(kFull, kDim);
  EXPECT_THROW(run_alone(*mixer, normal_rows(257, kDim, 1)), Error);
}

TEST(SpeedP305, StepsOfTheSimpleFormAreFlatAndTheLocalFormIsQuick) {
  const Json local = {{"name", "aft"}, {"window", 32}, {"rank", 16}, {"length", 4096}};
  const double step = step_ratio(kSimple, 128, 16384, 1024);
  std::printf("a token after 16384: %.3f times one after 1024\n", step);
  EXPECT_NEAR(step, 1, 0.1);
  for (const Json& part : {local, Json{{"name", "aft"}, {"window", 32}}}) {
    const double ratio = time_against(part, "softmax", 64, 4096);
    std::printf("%s: %.3f times dense attention\n", json_text(part).c_str(), ratio);
    EXPECT_LE(ratio, 0.3);
  }
}

// The paper's order of losses, printed: the simple form knows nothing of order, the local one does.
TEST(SystemsP305, TrainedLossesOfTheForms) {
  const trained::Settings settings{.steps = 300};
  const double simple = trained::text_loss(trained::two_blocks(kSimple), settings),
               local =
                   trained::text_loss(trained::two_blocks({{"name", "aft"}, {"window", 32}, {"rank", 16}}), settings),
               conv = trained::text_loss(trained::two_blocks({{"name", "aft"}, {"window", 32}}), settings);
  std::printf("nats a byte: simple %.3f, local %.3f, conv %.3f\n", simple, local, conv);
  EXPECT_LE(local, simple);
}

}  // namespace sennit::systems_p305_test
