// The Compressive Transformer (Rae et al., arXiv:1911.05507): what it sees, what teaches it, and how far back it reads.
#include <gtest/gtest.h>

#include "base/parallel.h"
#include "ops/arithmetic.h"
#include "support/mixers.h"
#include "support/trained.h"

namespace sennit::systems_p281_test {

Json with(const Json& options) {
  Json part = {{"name", "compressive"}};
  part.update(options);
  return part;
}
// With a memory of so many tokens and no other.
Json transformer_xl(int64_t segment, int64_t memory) {
  return with({{"segment", segment}, {"memory", memory}, {"compressed", 0}, {"rate", 1}});
}

TEST(SystemsP281, OneTokenToOneIsALongerMemory) {
  const Tensor x = normal_rows(300, 32, 2);
  const auto packed = make_mixer(with({{"segment", 16}, {"memory", 24}, {"compressed", 40}, {"rate", 1}}), 32),
             longer = make_mixer(transformer_xl(16, 64), 32), softmax = make_mixer("softmax", 32);
  EXPECT_LE(most_apart(run_alone(*packed, x), run_alone(*longer, x)), 1e-5);
  const Tensor start = normal_rows(64, 32, 2);  // as far as everything is remembered
  EXPECT_LE(most_apart(run_alone(*longer, start), run_alone(*softmax, start)), 1e-5);
}

// The first token of a segment sees n_m + c n_cm tokens before it in each layer, to the token.
TEST(SystemsP281, ReachIsThatOfItsMemoriesTimesLayers) {
  constexpr int64_t kSegment = 8, kMemory = 8, kPacked = 4, kRate = 4, kReach = kMemory + kRate * kPacked, kDim = 32;
  static_assert(kReach % kSegment == 0);  // so that what it sees begins with a segment too
  const Json part = with({{"segment", kSegment}, {"memory", kMemory}, {"compressed", kPacked}, {"rate", kRate}});
  for (const int64_t layers : {1, 2, 3}) {
    std::vector<std::unique_ptr<Mixer>> stack;
    for (int64_t l = 0; l < layers; ++l) stack.push_back(make_mixer(part, kDim, static_cast<uint64_t>(l + 1)));
    const auto last = [&](Tensor x) {
      for (const auto& mixer : stack) x = run_alone(*mixer, x);
      return x.slice(x.rows() - 1, 1).clone();
    };
    const int64_t n = 20 * kSegment + 1;
    const Tensor x = normal_rows(n, kDim, 3), before = last(x);
    for (const int64_t back : {kMemory, kMemory + 1, layers * kReach, layers * kReach + 1, n - 1}) {
      Tensor changed = x.clone();
      for (float& v : changed.slice(n - 1 - back, 1).span()) v = -9;
      EXPECT_EQ(most_apart(last(changed), before) != 0, back <= layers * kReach) << layers << " layers, " << back;
    }
  }
}

TEST(SystemsP281, TheTextsLossDoesNotMoveTheConvolution) {
  auto mixer =
      make_mixer(with({{"segment", 8}, {"memory", 8}, {"compressed", 5}, {"rate", 4}, {"compressor", "conv"}}), 32);
  std::vector<Var> losses;
  const Context context{.training = true, .losses = &losses};
  const Segment whole[] = {{0, 100, 0, nullptr}};
  backward(sum(mixer->forward(Var::leaf(normal_rows(100, 32, 4)), {whole, &context})));
  mixer->parameters([](const std::string& name, Parameter& p) {
    double size = 0;
    if (p.var.grad())
      for (const float g : p.var.grad().span()) size = std::fmax(size, std::fabs(double{g}));
    EXPECT_EQ(size == 0, name == "compress") << name;
  });
  ASSERT_EQ(losses.size(), 1u);
  backward(losses[0]);
  double size = 0;
  for (const float g : parameter_of(*mixer, "compress").var.grad().span()) size = std::fmax(size, std::fabs(double{g}));
  EXPECT_GT(size, 0);
}

TEST(SystemsP281, AStreamOfSixtyFourThousandTokensKeepsAsMuchAsAShortOne) {
  const int threads = thread_count();
  set_thread_count(1);  // what others hold at the same time would be counted
  auto mixer = make_mixer(with({{"segment", 64}, {"memory", 64}, {"compressed", 64}, {"rate", 4}}), 16);
  SequenceState state;
  const Tensor piece = normal_rows(512, 16, 5);
  run_alone(*mixer, piece, &state);
  const int64_t bytes = state.bytes();
  int64_t peak = 0;
  for (int64_t at = 512; at < 65536; at += 512) {
    reset_memory_peak();
    const int64_t base = memory_counters().live;
    run_alone(*mixer, piece, &state);
    ASSERT_EQ(state.bytes(), bytes) << at;
    if (at == 512) peak = memory_counters().peak - base;
    ASSERT_LE(memory_counters().peak - base, peak) << at;
  }
  set_thread_count(threads);
}

TEST(SystemsP281, TrainedOnBytesAgainstAMemoryOfAsManySlots) {
  const auto loss = [](const char* name, const Json& mixer) {
    const Json file = {{"d_model", 48}, {"blocks", {{{"repeat", 2}, {"mixer", mixer}, {"channel", "mlp"}}}}};
    const double nats =
        trained::text_loss(file, {.steps = 600, .rate = 8e-3}, {.rows = 4, .length = 512, .kept_length = 512});
    std::printf("%s: %.4f nats\n", name, nats);
    std::fflush(stdout);
    return nats;
  };
  const double packed = loss("32 slots, and 32 of four tokens each",
                             with({{"segment", 32}, {"memory", 32}, {"compressed", 32}, {"rate", 4}})),
               xl = loss("Transformer-XL of 64 slots", transformer_xl(32, 64));
  EXPECT_LE(packed, xl);
}

// A symbol, then so many tokens until the question for it: near ones first, then further and further ones.
trained::Rows copies(int64_t count, int64_t distance, Rng rng) {
  constexpr int32_t kSymbols = 8, kFillers = 8, kQuestion = kSymbols + kFillers;
  trained::Rows rows;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t place = rng.below(16), n = place + distance + 1;
    std::vector<int32_t> tokens(static_cast<size_t>(n)), targets(static_cast<size_t>(n), data::kIgnored);
    for (int32_t& t : tokens) t = kSymbols + static_cast<int32_t>(rng.below(kFillers));
    targets.back() = tokens[static_cast<size_t>(place)] = static_cast<int32_t>(rng.below(kSymbols));
    tokens.back() = kQuestion;
    rows.add(tokens, targets);
  }
  return rows;
}
trained::Rows lessons(int64_t step, Rng rng) {
  const int64_t more = rng.fork("distance").below(1000);
  if (step <= 100) return copies(48, 20 + more % 30, rng);
  return step <= 200 ? copies(12, 100 + more % 300, rng) : copies(3, 1000 + more, rng);
}

TEST(SystemsP281, TrainedToCopyOverTwoThousandTokens) {
  const auto accuracy = [](const char* name, const Json& mixer) {
    trained::Trainee trainee(
        {{"vocab", 17},
         {"d_model", 32},
         {"blocks", {{{"repeat", 2}, {"mixer", mixer}, {"channel", {{"name", "mlp"}, {"hidden", 64}}}}}}},
        {.steps = 260, .rate = 1e-2});
    trainee.train(lessons);
    const double right = 100 * trainee.accuracy(copies(60, 2000, Rng(8)));
    std::printf("%s: %.1f %% (chance: 12.5)\n", name, right);
    return right;
  };
  const auto packed = [](const char* compressor) {
    return with({{"segment", 32}, {"memory", 32}, {"compressed", 64}, {"rate", 32}, {"compressor", compressor}});
  };
  const double mean = accuracy("mean of 32", packed("mean")), conv = accuracy("convolution of 32", packed("conv")),
               xl = accuracy("Transformer-XL of as many slots", transformer_xl(32, 96));
  EXPECT_GE(mean, xl + 20);
  EXPECT_GE(conv, xl + 20);
}

}  // namespace sennit::systems_p281_test
