#include <gtest/gtest.h>

#include "base/error.h"
#include "base/parallel.h"
#include "decoding/generate.h"
#include "model/stored_model.h"
#include "support/levels.h"
#include "support/models.h"

namespace sennit::int8_model_test {

// A small llama as a file would hold it.
StoredModel llama(bool tied) {
  const Json part = {{"mixer", "softmax"}, {"heads", 4}, {"kv_heads", 2}, {"channel", "swiglu"}};
  const Json file = {{"vocab", 90}, {"d_model", 64}, {"tie_embeddings", tied}, {"blocks", {part, part, part}}};
  Model model(read_model_spec(file, "test"), Rng(3), "test");
  StoredModel stored;
  stored.model_file = write_model_spec(model.spec());
  model.parameters([&](const std::string& name, Parameter& p) { stored.tensors[name] = io::stored(p.value()); });
  return stored;
}

std::vector<float> logits(Model& model, const std::vector<int32_t>& tokens, const Context& context = {}) {
  const NoGrad off;
  const Segment whole[] = {{0, std::ssize(tokens), 0, nullptr}};
  const Tensor y = model.logits(model.hidden(tokens, {whole, &context}), context).value();
  return {y.span().begin(), y.span().end()};
}

// One after another, or in pieces.
std::vector<float> logits_in_pieces(Model& model, const std::vector<int32_t>& tokens, const Context& context,
                                    int64_t piece) {
  const NoGrad off;
  Session session(model, context);
  std::vector<float> last;
  for (int64_t i = 0; i < std::ssize(tokens); i += piece) {
    const auto y = session.feed(std::span(tokens).subspan(i, std::min(piece, std::ssize(tokens) - i)), piece);
    last.assign(y.begin(), y.end());
  }
  return last;
}

TEST(Int8Model, LogitsStayWithinTheNoiseOfRounding) {
  for (const bool tied : {false, true}) {
    const StoredModel stored = llama(tied);
    const auto tokens = some_tokens(40, 90);
    const auto floats = logits(*make_model(stored), tokens);
    const double blocks = relative_distance(logits(*make_model(stored, {.weights = "q8_0"}), tokens), floats),
                 rows = relative_distance(logits(*make_model(stored, {.weights = "int8"}), tokens), floats);
    // A normal row of 64 has a larger peak than a block of 32, by a sixth.
    EXPECT_LT(rows, 1.7 * blocks) << tied;
    EXPECT_GT(rows, 0.8 * blocks) << tied;
  }
}

TEST(Int8Model, PiecesAndThreadsChangeNothing) {
  const auto model = make_model(llama(false), {.weights = "int8"});
  const auto tokens = some_tokens(50, 90);
  const int threads = thread_count();
  for_each_level([&](IsaLevel) {
    Context context;
    context.exact = true;
    for (const Precision precision : {Precision::f32, Precision::bf16}) {
      context.precision = precision;
      set_thread_count(1);
      const auto all = logits(*model, tokens, context);
      const std::span<const float> last = std::span(all).last(90);
      for (const int t : {1, 2, 3}) {
        set_thread_count(t);
        ASSERT_TRUE(same_bits(logits(*model, tokens, context), all)) << t;
        for (const int64_t piece : {1, 7, 50})
          ASSERT_TRUE(same_bits(logits_in_pieces(*model, tokens, context, piece), last)) << t << " by " << piece;
      }
    }
  });
  set_thread_count(threads);
}

TEST(Int8Model, MatricesThatAreStoredQuantizedStaySo) {
  StoredModel stored = llama(true);
  for (auto& [name, t] : stored.tensors)
    if (t.shape.rank() == 2) t = io::encoded(t, io::BlockFormat::q4_0);
  const auto tokens = some_tokens(9, 90);
  EXPECT_TRUE(same_bits(logits(*make_model(stored, {.weights = "int8"}), tokens), logits(*make_model(stored), tokens)));
}

TEST(Int8Model, BytesAndNames) {
  const auto forms = weight_forms();
  EXPECT_EQ(forms.front(), "q8_0");
  EXPECT_EQ(forms.back(), "int8");
  const io::StoredTensor matrix = io::stored(Tensor::zeros({10, 64}));
  EXPECT_EQ(kept_bytes(matrix, "", false), 10 * 64 * 4);
  EXPECT_EQ(kept_bytes(matrix, "int8", false), 10 * (64 + 8));
  EXPECT_EQ(kept_bytes(matrix, "q4_0", false), 10 * 2 * 18);
  EXPECT_EQ(kept_bytes(matrix, "q4_0", true), 10 * 2 * 34);  // the output map, which is given no format of 4 bits
  EXPECT_EQ(kept_bytes(io::encoded(matrix, io::BlockFormat::q4_0), "int8", false), 10 * 2 * 18);
  EXPECT_THROW(make_model(llama(false), {.weights = "int7"}), Error);
}

}  // namespace sennit::int8_model_test
