// Mamba (Gu & Dao, arXiv:2312.00752): decoding costs the same at any position, the states of all tokens are never
// stored at once, and what selection is for.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "decoding/generate.h"
#include "sequence/recurrences.h"
#include "support/compositions.h"
#include "support/mixer_timing.h"
#include "support/timing.h"
#include "support/trained.h"
#include "tasks/task.h"

namespace sennit::systems_p026_test {

Tensor draw(Shape shape, uint64_t seed, double scale = 1) {
  Tensor t(shape);
  Rng rng(seed);
  for (float& x : t.span()) x = static_cast<float>(scale * rng.normal());
  return t;
}

// The time of a token after `position` others.
double decode_seconds(const std::string& mixer, int64_t position) {
  NoGrad off;
  const Json file{{"vocab", 64}, {"d_model", 128}, {"blocks", {{{"mixer", mixer}, {"channel", "none"}}}}};
  Model model(read_model_spec(file, "test"), Rng(1));
  Session session(model, Context{});
  std::vector<int32_t> tokens(static_cast<size_t>(position), 3);
  session.feed(tokens);
  const int32_t next[] = {5};
  session.feed(next);
  return seconds_of(50, [&] { session.feed(next); });
}

TEST(SpeedP026, DecodingDoesNotSlowDown) {
  const double early = decode_seconds("mamba", 1024), late = decode_seconds("mamba", 16384);
  EXPECT_LE(late / early, 1.1) << early << " s early, " << late << " s late";
  const double attention = decode_seconds("softmax", 16384) / decode_seconds("softmax", 1024);
  EXPECT_GE(attention, 3);
}

TEST(SystemsP026, StatesOfAllTokensAreNeverStored) {
  NoGrad off;
  const int64_t n = 4096, channels = 64, states = 16;
  const Var x(draw({n, channels}, 1)), dt(Tensor::full({n, channels}, 0.05f)), b(draw({n, states}, 2)),
      c(draw({n, states}, 3));
  const Var a(Tensor::full({channels, states}, -1)), d(Tensor::full({channels}, 1));
  const Context context;
  const Segment whole[] = {{0, n, 0, nullptr}};
  const Batch batch{whole, &context};
  reset_memory_peak();
  const int64_t base = memory_counters().live;
  selective_scan({x, dt, a, b, c, d}, batch, 0);
  const int64_t output = n * channels * 4;
  EXPECT_LE(memory_counters().peak - base, output + output / 4);  // the states would be 16 times the output
}

// The recurrence fused, as a multiple of the speed of the same written in single operations.
TEST(SpeedP026, TheFusedScanBeatsSingleOperations) {
  NoGrad off;
  const int64_t n = 512, channels = 256, states = 16;
  const Vars in{Var(draw({n, channels}, 1)),
                Var(Tensor::full({n, channels}, 0.05f)),
                Var(Tensor::full({channels, states}, -1)),
                Var(draw({n, states}, 2)),
                Var(draw({n, states}, 3)),
                Var(Tensor::full({channels}, 1))};
  const Context context;
  const Segment whole[] = {{0, n, 0, nullptr}};
  Tensor fused, single;
  const double ratio = processor_ratio(
      9,
      [&] {
        Var h(Tensor::zeros({channels, states}));
        single =
            composed::recurrence(0, n, h, [&](int64_t t, Var& s) { return composed::scan_step(in, t, s); })[0].value();
      },
      [&] {
        fused = selective_scan({in[0], in[1], in[2], in[3], in[4], in[5]}, {whole, &context}, 0).value();
      });
  EXPECT_LE(most_apart(fused, single), 1e-4);
  std::printf("single operations take %.1f times as long\n", ratio);
  EXPECT_GE(ratio, 5);
}

// Three blocks of Mamba have as many numbers as two of attention and a channel mixer.
TEST(SystemsP026, TrainedOnTextItIsNearATransformer) {
  const Json mamba = {{"mixer", "mamba"}, {"channel", "none"}}, attention = {{"mixer", "softmax"}, {"channel", "mlp"}};
  const Json ours = {{"d_model", 64}, {"blocks", {mamba, mamba, mamba}}},
             theirs = {{"d_model", 64}, {"blocks", {attention, attention}}};
  const auto numbers = [](Json file) {
    file["vocab"] = 256;
    Model model(read_model_spec(file, "test"), Rng(1));
    int64_t count = 0;
    model.parameters([&](const std::string&, Parameter& p) { count += p.value().elements(); });
    return static_cast<double>(count);
  };
  EXPECT_NEAR(numbers(ours) / numbers(theirs), 1, 0.1);
  const trained::Settings settings{.steps = 600};
  const double mamba_loss = trained::text_loss(ours, settings), attention_loss = trained::text_loss(theirs, settings);
  std::printf("nats a byte: Mamba %.3f, transformer %.3f\n", mamba_loss, attention_loss);
  EXPECT_LE(mamba_loss, attention_loss + 0.05);
}

// The part of 16 symbols among 240 places that is said again in its order. The places and the symbols grow in number
// over the first part of the training.
double copied(const Json& mixer) {
  const int64_t steps = 5000, grown = 2000, count = 16, length = 256;
  const auto task = [](int64_t symbols, int64_t tokens) {
    return tasks::registry().make(Json{{"name", "selective_copying"}, {"count", symbols}, {"length", tokens}}, {},
                                  Rng(), "test");
  };
  const Json block = {{"mixer", mixer}, {"channel", "none"}};
  trained::Trainee trainee({{"vocab", task(count, length)->vocab()}, {"d_model", 64}, {"blocks", {block, block}}},
                           {.steps = steps, .rate = 6e-3});
  trainee.train([&](int64_t step, Rng rng) {
    const double part = std::min(1.0, static_cast<double>(step) / static_cast<double>(grown));
    const int64_t symbols = 1 + static_cast<int64_t>(part * static_cast<double>(count - 1)),
                  tokens = std::min(length, static_cast<int64_t>(static_cast<double>(symbols) * (2 + 14 * part)));
    return trained::sequences(*task(symbols, tokens), (6 * length + tokens - 1) / tokens, rng);
  });
  return trainee.accuracy(trained::sequences(*task(count, length), 64, Rng(1000)));
}
TEST(SystemsP026, TrainedToCopyWhatItSelects) {
  const double selects = copied({{"name", "mamba"}, {"state", 32}}),
               fixed = copied({{"name", "mamba"}, {"state", 32}, {"selective", false}});
  std::printf("symbols copied: selected %.3f, constant %.3f\n", selects, fixed);
  EXPECT_GE(selects, 0.99);
  EXPECT_LE(fixed, selects - 0.25);
}

}  // namespace sennit::systems_p026_test
