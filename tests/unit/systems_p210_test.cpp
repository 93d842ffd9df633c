// Attamba (Akhauri et al., arXiv:2411.17685): attention to the ends of chunks that state spaces have read.
#include <gtest/gtest.h>

#include "support/mixer_timing.h"

namespace sennit::systems_p210_test {

Json with(const Json& options) {
  Json part = {{"name", "attamba"}};
  part.update(options);
  return part;
}

// State spaces that hand on their input: nothing is read from the state.
TEST(SystemsP210, ChunksOfOneTokenThroughTheIdentityAreSoftmaxAttention) {
  const auto attamba = make_mixer(with({{"chunk", 1}}), 32), softmax = make_mixer("softmax", 32);
  for (const char* name : {"k.c.weight", "v.c.weight"}) parameter_of(*attamba, name).var.value().fill(0);
  for (const auto& [ours, theirs] : {std::pair{"q.weight", "q.weight"}, std::pair{"k.u.weight", "k.weight"},
                                     std::pair{"v.u.weight", "v.weight"}, std::pair{"out.weight", "out.weight"}})
    parameter_of(*softmax, theirs).var.value().copy_from(parameter_of(*attamba, ours).value());
  const Tensor x = normal_rows(300, 32, 2);
  EXPECT_LE(most_apart(run_alone(*attamba, x), run_alone(*softmax, x)), 1e-5);
}

TEST(SystemsP210, ALaterTokenChangesNothingBefore) {
  const auto mixer = make_mixer(with({{"chunk", 4}}), 32);
  const Tensor x = normal_rows(100, 32, 2), before = run_alone(*mixer, x);
  for (const int64_t t : {1, 3, 4, 42, 63, 99}) {
    Tensor changed = x.clone();
    for (float& v : changed.slice(t, 1).span()) v = 9;
    EXPECT_EQ(most_apart(run_alone(*mixer, changed).slice(0, t), before.slice(0, t)), 0) << t;
  }
}

TEST(SystemsP210, AQueryReadsTheEndsOfChunksTheFirstTokenAndItself) {
  const auto mixer = make_mixer(with({{"chunk", 4}}), 32);
  NoGrad off;
  const auto m = mixer->implicit(Var(normal_rows(40, 32, 3)), {});
  for (int64_t i = 0; i < 40; ++i)
    for (int64_t j = 0; j < 40; ++j) {
      const bool read = j == i || (j < i && (j % 4 == 3 || j == 0));
      EXPECT_EQ(m->weights.data()[i * 40 + j] != 0, read) << i << " " << j;
    }
}

TEST(SystemsP210, TheCacheIsAQuarter) {
  constexpr int64_t kTokens = 4096, kWidth = 32, kChunk = 4, kState = 3;
  const int64_t entry = 2 * kWidth * 4, full = state_bytes("softmax", kTokens);
  ASSERT_EQ(full, kTokens * entry);
  // With the states of both state spaces, each as many entries as a channel keeps numbers, and the first token.
  EXPECT_LE(state_bytes(with({{"chunk", kChunk}, {"state", kState}}), kTokens), full / 4 + kChunk * entry);
  EXPECT_EQ(state_bytes(with({{"chunk", kChunk}, {"state", 16}}), kTokens), full / 4 + 17 * entry);
}

TEST(SpeedP210, AStepAfterEightThousandTokensIsUnderHalfOfFullAttention) {
  constexpr int64_t kWidth = 256, kTokens = 8192;
  const auto attamba = make_mixer(with({{"heads", 4}}), kWidth),
             softmax = make_mixer({{"name", "softmax"}, {"heads", 4}}, kWidth);
  SequenceState ours, theirs;
  const Tensor past = normal_rows(kTokens, kWidth, 1), token = normal_rows(1, kWidth, 2);
  run_alone(*attamba, past, &ours), run_alone(*softmax, past, &theirs);
  const auto steps = [&](Mixer& mixer, SequenceState& state) {
    return [&] {
      for (int i = 0; i < 8; ++i) run_alone(mixer, token, &state);
    };
  };
  const double share = processor_ratio(31, steps(*attamba, ours), steps(*softmax, theirs));
  std::printf("a step after %d tokens: %.3f of full attention's\n", static_cast<int>(kTokens), share);
  EXPECT_LE(share, 0.45);
}

}  // namespace sennit::systems_p210_test
