// A hybrid of all mixers: training in pieces, packed and checkpointed, prefill against decode, threads.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "decoding/generate.h"
#include "model/checkpoint.h"
#include "ops/arithmetic.h"
#include "optimizers/optimizer.h"
#include "support/models.h"
#include "support/temp_folder.h"

namespace sennit::model_test {

struct Step {
  std::vector<float> losses, gradients;
};

// The loss of packed documents of these lengths, and its gradients.
Step packed_step(Model& model, const std::vector<int32_t>& tokens, const std::vector<int64_t>& lengths,
                 const Context& context, bool checkpointed = false) {
  std::vector<Segment> segments;
  for (const int64_t n : lengths)
    segments.push_back({segments.empty() ? 0 : segments.back().begin + segments.back().length, n, 0, nullptr});
  std::vector<int32_t> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(0);
  clear_gradients(model);
  Tensor losses;
  const Var h = model.hidden(tokens, {segments, &context}, checkpointed);
  backward(model.loss(h, targets, context, &losses));
  return {{losses.span().begin(), losses.span().end()}, all_of(model, true)};
}

TEST(Model, PackedDocumentsAreEachAlone) {
  Model model = hybrid();
  const std::vector<int64_t> lengths = {37, 1, 70, 12};
  const auto tokens = some_tokens(120);
  for (const bool exact : {false, true}) {
    const Context context{.exact = exact};
    const Step packed = packed_step(model, tokens, lengths, context);
    std::vector<float> sum(packed.gradients.size(), 0);
    int64_t at = 0;
    for (const int64_t n : lengths) {
      // The target of a document's last token is the next one's first, here as there.
      std::vector<int32_t> document(tokens.begin() + at, tokens.begin() + at + n),
          targets(tokens.begin() + at + 1, tokens.begin() + std::min<int64_t>(at + n + 1, 120));
      targets.resize(n, 0);
      const Segment whole[] = {{0, n, 0, nullptr}};
      clear_gradients(model);
      Tensor losses;
      backward(model.loss(model.hidden(document, {whole, &context}), targets, context, &losses));
      for (int64_t i = 0; i < n; ++i) {
        if (exact)
          EXPECT_EQ(losses.data()[i], packed.losses[at + i]) << "token " << at + i;
        else
          EXPECT_NEAR(losses.data()[i], packed.losses[at + i], 2e-5);
      }
      const auto alone = all_of(model, true);
      ASSERT_EQ(alone.size(), sum.size());
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += alone[i] * static_cast<float>(n) / 120;
      at += n;
    }
    EXPECT_LT(relative_distance(packed.gradients, sum), 1e-5);
  }
}

TEST(Model, CheckpointedIsNotCheckpointedToTheBit) {
  Model model = hybrid();
  const auto tokens = some_tokens(90);
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    const Context context{.precision = precision};
    const Step plain = packed_step(model, tokens, {50, 40}, context),
               again = packed_step(model, tokens, {50, 40}, context, true);
    EXPECT_TRUE(same_bits(plain.losses, again.losses));
    EXPECT_TRUE(same_bits(plain.gradients, again.gradients));
  }
  SequenceState state;
  const Context context;
  const Segment carried[] = {{0, 90, 0, &state}};
  EXPECT_THROW(model.hidden(tokens, {carried, &context}, true), InternalError);
}

// Two halves with the state between them, joined on one tape or cut.
std::vector<float> gradient_in_pieces(Model& model, const std::vector<int32_t>& tokens,
                                      const std::vector<int64_t>& lengths, bool cut) {
  const Context context;
  clear_gradients(model);
  SequenceState state;
  Var total;
  int64_t at = 0;
  for (const int64_t n : lengths) {
    const Segment piece[] = {{0, n, state.position, &state}};
    const std::span<const int32_t> all(tokens);
    const Var h = model.hidden(all.subspan(at, n), {piece, &context});
    const Var loss = scale(model.loss(h, all.subspan(at + 1, n), context),
                           static_cast<float>(n) / static_cast<float>(std::ssize(tokens) - 1));
    if (cut) {
      backward(loss);
      state.detach();
    } else {
      total = total ? add(total, loss) : loss;
    }
    at += n;
    EXPECT_EQ(state.position, at);
  }
  if (!cut) backward(total);
  return all_of(model, true);
}

TEST(Model, StreamingOnOneTapeIsTheWholeSequence) {
  Model model = hybrid();
  const auto tokens = some_tokens(91);
  const auto whole = gradient_in_pieces(model, tokens, {90}, false);
  EXPECT_LT(relative_distance(gradient_in_pieces(model, tokens, {45, 45}, false), whole), 2e-5);
  EXPECT_LT(relative_distance(gradient_in_pieces(model, tokens, {1, 64, 2, 23}, false), whole), 2e-5);
  EXPECT_GT(relative_distance(gradient_in_pieces(model, tokens, {45, 45}, true), whole),
            1e-3);  // truncation can be told
}

TEST(Model, AnyChunkingOfAPromptGivesTheSameLogits) {
  Model model = hybrid();
  const auto tokens = some_tokens(150);
  for (const bool exact : {true, false}) {
    Session whole(model, {.exact = exact});
    const auto all = whole.feed(tokens, 1000);
    const std::vector<float> expected(all.begin(), all.end());
    for (const int64_t piece : {1, 7, 16, 64, 100}) {
      Session session(model, {.exact = exact});
      const auto got = session.feed(tokens, piece);
      if (exact)
        EXPECT_TRUE(same_bits(got, expected)) << "pieces of " << piece;
      else
        EXPECT_LT(relative_distance({got.begin(), got.end()}, expected), 1e-5) << "pieces of " << piece;
      EXPECT_EQ(session.state().bytes(), whole.state().bytes());
      EXPECT_EQ(session.state().bytes(), model.state_bytes(150));
    }
  }
}

TEST(Model, DecodingIsTraining) {
  Model model = hybrid();
  const auto tokens = some_tokens(60);
  const Context exact{.exact = true};
  const Segment whole[] = {{0, 60, 0, nullptr}};
  const Var all = model.logits(model.hidden(tokens, {whole, &exact}), exact);
  Session session(model, exact);
  for (int64_t i = 0; i < 60; ++i) {
    const auto got = session.feed(std::span(tokens).subspan(i, 1));
    ASSERT_TRUE(same_bits(got, all.value().span().subspan(i * 60, 60))) << "token " << i;
  }
}

TEST(Model, ATrainingStepHasTheSameBitsOnAnyNumberOfThreads) {
  const int before = thread_count();
  for (const Precision precision : {Precision::f32, Precision::bf16}) {
    std::vector<float> reference;
    for (const int threads : {1, 2, 3}) {
      set_thread_count(threads);
      Model model = hybrid();
      auto optimizer = optimizers::registry().make(Json("adamw"), {}, Rng(), "test");
      const std::vector<NamedParameter> parameters = named_parameters(model);
      for (int64_t step = 1; step <= 2; ++step) {
        packed_step(model, some_tokens(400, 60, static_cast<uint64_t>(step)), {130, 1, 200, 69},
                    {.precision = precision});
        optimizer->step(parameters, {.step = step, .rate = 1e-2, .gradient_scale = 1});
      }
      const auto weights = all_of(model, false);
      if (threads == 1) reference = weights;
      EXPECT_TRUE(same_bits(weights, reference)) << threads << " threads, " << to_string(precision);
    }
  }
  set_thread_count(before);
}

TEST(Model, EveryParameterGetsAGradient) {
  Model model = hybrid();
  packed_step(model, some_tokens(40), {40}, {});
  model.parameters([](const std::string& name, Parameter& p) {
    ASSERT_TRUE(p.var.grad()) << name;
    double size = 0;
    for (const float g : p.var.grad().span()) size += std::fabs(g);
    EXPECT_GT(size, 0) << name;
  });
}

TEST(Model, MemoryReturnsToItsLevelAfterAStep) {
  Model model = hybrid();
  const auto tokens = some_tokens(64);
  int64_t level = 0;
  for (int i = 0; i < 3; ++i) {
    packed_step(model, tokens, {64}, {.training = true}, i == 1);
    clear_gradients(model);
    if (i == 0) level = memory_counters().live;
    EXPECT_EQ(memory_counters().live, level);
  }
}

TEST(Model, WeightsThatAreNotFiniteAreNotWritten) {
  const TempFolder folder;
  Model model = hybrid();
  write_checkpoint(folder.path(), model);
  const std::string good = slurp(folder / "model.safetensors");
  model.parameters([](const std::string& name, Parameter& p) {
    Tensor same = p.value();
    if (name == "blocks.2.mixer.k.weight") same.data()[7] = NAN;
  });
  EXPECT_NE(error_of([&] { write_checkpoint(folder.path(), model); }).find("blocks.2.mixer.k.weight"), std::string::npos);
  EXPECT_EQ(slurp(folder / "model.safetensors"), good);
}

TEST(Model, LargerThanTheMachineIsOneError) {
  const Json file{{"vocab", 1 << 24}, {"d_model", 1 << 17}, {"blocks", {{{"mixer", "gla"}}}}};
  EXPECT_NE(error_of([&] { Model(read_model_spec(file, "test"), Rng(1), "test"); }).find("memory: expected at most"), std::string::npos);
}

}  // namespace sennit::model_test
