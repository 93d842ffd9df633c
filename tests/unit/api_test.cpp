#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/checkpoint.h"
#include "sennit/sennit.h"
#include "support/temp_folder.h"

namespace sennit::api_test {

// An untrained model over bytes: what it says is noise, how it is called is not.
TextModel untrained(const std::string& folder, uint64_t seed) {
  const Json file = json_of(
      R"({"vocab": 257, "d_model": 32, "blocks": [{"mixer": "gla", "heads": 2}, {"mixer": "softmax", "heads": 2, "window": 8}]})");
  Model made(read_model_spec(file, "test"), Rng(seed));
  write_checkpoint(folder, made);
  tokenizers::bytes_tokenizer()->save(folder);
  return TextModel::load(folder, {.bf16 = false, .exact = true});
}

struct Api : testing::Test {
  TempFolder folder;
  TextModel model = untrained(folder.path(), 7);
  const WriteOptions forty{.max_tokens = 40, .stop_at_end = false, .seed = 5};
};

TEST_F(Api, SaysWhatItIs) {
  EXPECT_EQ(model.vocab_size(), 257);
  EXPECT_EQ(model.width(), 32);
  EXPECT_GT(model.parameter_count(), 257 * 32);
  EXPECT_EQ(model.decode(model.encode("on a rope")), "on a rope");
}

TEST_F(Api, StreamsWhatItReturns) {
  std::string streamed;
  const Answer a = model.generate("on a rope", forty, [&](std::string_view piece) { return streamed += piece, true; });
  EXPECT_EQ(a.text, streamed);
  EXPECT_EQ(a.tokens.size(), 40u);
  EXPECT_EQ(a.ending, Ending::max_tokens);
  const Answer stopped = model.generate("on a rope", forty, [](std::string_view) { return false; });
  EXPECT_EQ(stopped.ending, Ending::cancelled);
  EXPECT_LT(stopped.tokens.size(), 40u);
}

TEST_F(Api, PiecesSnapshotsAndFilesGoOnToTheBit) {
  const Answer whole = model.generate("on a rope", forty);
  TextSession session = model.begin();
  session.read("on a");
  session.logits();
  session.read(" rope");
  EXPECT_EQ(session.logits(), [&] {
    const auto ids = model.encode("on a rope");
    const auto all = model.logits(ids);
    return std::vector<float>(all.end() - 257, all.end());
  }());
  WriteOptions first = forty;
  first.max_tokens = 15;
  std::vector<int32_t> tokens = session.write(first).tokens;
  session.save(folder / "session");
  WriteOptions rest = forty;
  rest.max_tokens = 25;
  TextSession loaded = model.load_session(folder / "session"), copy = session.snapshot();
  for (TextSession* s : {&session, &loaded, &copy}) {
    std::vector<int32_t> both = tokens;
    const Answer a = s->write(rest);
    both.insert(both.end(), a.tokens.begin(), a.tokens.end());
    EXPECT_EQ(both, whole.tokens);
    EXPECT_EQ(s->tokens().size(), model.encode("on a rope").size() + 40);
  }
}

TEST_F(Api, EmbedsAsTheMeanOfItsParts) {
  const auto a = model.embed("rope");
  ASSERT_EQ(a.size(), 32u);
  EXPECT_EQ(a, model.embed("rope"));
  EXPECT_NE(a, model.embed("sail"));
}

TEST_F(Api, RefusesBadInput) {
  TextSession session = model.begin();
  EXPECT_NE(error_of([&] { session.write(); }).find("at least one token"), std::string::npos);
  EXPECT_NE(error_of([&] { session.logits(); }).find("at least one token"), std::string::npos);
  const int32_t outside[] = {3, 257};
  EXPECT_NE(error_of([&] { session.read(outside); }).find("257"), std::string::npos);
  EXPECT_NE(error_of([&] { model.logits({}); }).find("at least one token"), std::string::npos);
  EXPECT_NE(error_of([&] { model.generate("x", {.temperature = -1}); }).find("temperature"), std::string::npos);
  EXPECT_NE(error_of([&] { TextModel::load(folder / "nowhere"); }).find("nowhere"), std::string::npos);
  spill(folder / "session", "not one");
  EXPECT_NE(error_of([&] { model.load_session(folder / "session"); }), "");
}

}  // namespace sennit::api_test
