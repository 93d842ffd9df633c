#include "tokenizers/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_trainer.h>

#include <cstdio>

#include "base/rng.h"
#include "support/temp_folder.h"
#include "tokenizers/sentencepiece.h"

namespace sennit::tokenizers::tokenizer_test {

std::string sample_text() {
  std::string text;
  const char* words[] = {"the",     "braid", "holds", "a", "line",  "of",  "many",
                         "strands", "12",    "sea",   "é", "naïve", "Ship"};
  Rng rng(3);
  for (int i = 0; i < 30000; ++i) {
    text += words[rng.below(13)];
    text += i % 17 == 16 ? ".\n" : i % 5 == 4 ? ", " : " ";
  }
  return text;
}

// A tokenizer trained once for all tests.
const Tokenizer& trained() {
  static const auto tokenizer = [] {
    TempFolder dir;
    spill(dir / "text.txt", sample_text());
    const std::string files[] = {dir / "text.txt"};
    return train_sentencepiece(files, dir.path(), {.vocab_size = 330});
  }();
  return *tokenizer;
}

const std::string kHostile[] = {"",
                                " ",
                                "  ",
                                "a",
                                " a",
                                "a ",
                                "  a  b   ",
                                "\n",
                                "\n\n\n",
                                "a\nb",
                                "\r\n",
                                "\t\ta",
                                "<s>",
                                "</s>",
                                "<unk>",
                                "<0x0A>",
                                "<pad> <s></s>",
                                "\xE2\x96\x81",
                                "\xE2\x96\x81 the\xE2\x96\x81\xE2\x96\x81 \xE2\x96\x81line",
                                "\xE2\x96\x85",
                                "\xEF\xBF\xBD",
                                "\xEF\xBB\xBFx",
                                "\xEF\xAC\x81 \xE2\x91\xA0 \xC2\xBD",
                                "e\xCC\x81 vs \xC3\xA9",
                                "\xE4\xBD\xA0\xE5\xA5\xBD",
                                "\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA9",
                                "\xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D",
                                "\xC2\xA0nbsp\xE3\x80\x80ideographic",
                                "1234567890",
                                "3.14e-10",
                                "\x01\x02\x7f",
                                "if (x) {\n    y();\n\t}\n",
                                std::string("a\0b\0", 4),
                                std::string(5000, 'x'),
                                std::string(5000, ' '),
                                std::string(3000, '\n')};

std::string random_utf8(Rng& rng) {
  std::string text;
  for (int64_t n = rng.below(60); n > 0; --n) {
    const char32_t tops[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
    char32_t c;
    do c = static_cast<char32_t>(rng.below(tops[rng.below(5)]));
    while (c >= 0xd800 && c < 0xe000);
    append_utf8(text, c);
  }
  return text;
}

TEST(Tokenizer, EveryUtf8StringGoesRound) {
  const auto bytes = bytes_tokenizer();
  for (const Tokenizer* t : {static_cast<const Tokenizer*>(bytes.get()), &trained()}) {
    for (const std::string& text : kHostile) EXPECT_EQ(t->decode(t->encode(text)), text) << t->name();
    Rng rng(7);
    for (int i = 0; i < 3000; ++i) {
      const std::string text = random_utf8(rng);
      ASSERT_EQ(t->decode(t->encode(text)), text) << t->name();
      for (const int32_t id : t->encode(text)) ASSERT_TRUE(id >= 0 && id < t->vocab_size());
    }
  }
}

TEST(Tokenizer, BrokenUtf8GoesRoundToo) {
  Rng rng(9);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int64_t n = rng.below(20); n > 0; --n)
      text += static_cast<char>(rng.below(3) ? 0x80 + rng.below(128) : rng.below(128));
    ASSERT_EQ(trained().decode(trained().encode(text)), text);
  }
}

TEST(Tokenizer, BytesAreTheirOwnIds) {
  const auto t = bytes_tokenizer();
  EXPECT_EQ(t->vocab_size(), 257);
  EXPECT_EQ(t->special().eos, 256);
  EXPECT_EQ(t->encode("A\xff"), (std::vector<int32_t>{65, 255}));
  EXPECT_EQ(t->decode(std::vector<int32_t>{72, 256, 105}), "Hi");
  EXPECT_EQ(t->piece(10), "<0x0A>");
  EXPECT_THROW(t->decode(std::vector<int32_t>{257}), Error);
  EXPECT_THROW(t->piece(-1), Error);
}

TEST(SentencePiece, LearnsWordsKeepsNewlinesAndSplitsDigits) {
  const Tokenizer& t = trained();
  EXPECT_EQ(t.vocab_size(), 330);
  EXPECT_LT(t.encode("the braid holds many strands").size(), 12u);
  EXPECT_EQ(t.encode("\n\n").size(), 2u);
  EXPECT_EQ(t.piece(t.encode("\n")[0]), "\n");
  EXPECT_EQ(t.encode("1212").size(), 4u);
  EXPECT_EQ(t.special().eos, 2);
  EXPECT_THROW(t.piece(330), Error);
}

TEST(SentencePiece, WordByWordIsAsTheWholeText) {
  TempFolder dir;
  trained().save(dir.path());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(dir / "tokenizer.model").ok());
  const auto expect_same = [&](const std::string& text) {
    std::vector<int> whole;
    ASSERT_TRUE(library.Encode(text, &whole).ok());
    ASSERT_EQ(trained().encode(text), whole) << text.substr(0, 100);
  };
  expect_same(sample_text());
  Rng rng(13);
  const std::string parts[] = {" ", "  ", "   ", "\n", "a",        "the",          "Sea",      "12",
                               ",", ".",  "\t",  "\r", "\xC3\xA9", "\xE4\xBD\xA0", "\xC2\xA0", "strand"};
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int64_t n = rng.below(30); n > 0; --n) text += parts[rng.below(16)];
    expect_same(text);
  }
}

TEST(SentencePiece, ConcatenatedBytesAreTheText) {
  const std::string text = "The sea,\n holds \xE4\xBD\xA0 12 \xE2\x96\x81.";
  std::string joined;
  for (const int32_t id : trained().encode(text)) joined += trained().bytes(id);
  EXPECT_EQ(joined, text);
}

TEST(SentencePiece, TrainingIsDeterministicAndSamples) {
  TempFolder dir;
  spill(dir / "text.txt", sample_text() + std::string(20000, 'y') + "\n");  // with a line longer than the library takes
  const std::string files[] = {dir / "text.txt"};
  std::vector<std::string> models;
  std::vector<std::string> stages;
  for (int64_t budget : {int64_t{1} << 30, int64_t{1} << 30, int64_t{60000}}) {
    train_sentencepiece(files, dir.path(), {.vocab_size = 300, .max_bytes = budget},
                        [&](std::string_view stage, int64_t done, int64_t total) {
                          EXPECT_LE(done, total);
                          stages.emplace_back(stage);
                        });
    models.push_back(slurp(dir / "tokenizer.model"));
  }
  EXPECT_EQ(models[0], models[1]);
  EXPECT_NE(models[0], models[2]);
  EXPECT_EQ(stages.back(), "learning");
}

TEST(SentencePiece, NothingIsPrinted) {
  TempFolder dir;
  spill(dir / "text.txt", "too little\n");
  spill(dir / "bad.model", "not a model");
  spill(dir / "cut.model", [] {
    TempFolder saved;
    trained().save(saved.path());
    return slurp(saved / "tokenizer.model").substr(0, 2000);
  }());
  const std::string files[] = {dir / "text.txt"};
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  const std::string training = error_of([&] { train_sentencepiece(files, dir.path(), {.vocab_size = 5000}); });
  const std::string bad = error_of([&] { load_sentencepiece(dir / "bad.model"); });
  const std::string cut = error_of([&] { load_sentencepiece(dir / "cut.model"); });
  trained().encode("quiet");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_NE(training.find("5000 tokens"), std::string::npos) << training;
  EXPECT_NE(bad.find(dir / "bad.model"), std::string::npos) << bad;
  EXPECT_NE(cut.find(dir / "cut.model"), std::string::npos) << cut;
  EXPECT_EQ(listing(dir.path()), (std::vector<std::string>{"bad.model", "cut.model", "text.txt"}));
}

TEST(SentencePiece, AForeignModelAnswersAsItsLibrary) {
  TempFolder dir;
  spill(dir / "text.txt", sample_text());
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      "--model_type=unigram --vocab_size=45 --minloglevel=3 --input=" + (dir / "text.txt") +
      " --model_prefix=" + (dir / "tokenizer"));
  ASSERT_TRUE(status.ok()) << status.ToString();
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(dir / "tokenizer.model").ok());
  const auto t = load_tokenizer(dir.path());
  for (const std::string& text : kHostile) {
    std::vector<int> ids;
    std::string back;
    ASSERT_TRUE(library.Encode(text, &ids).ok());
    ASSERT_TRUE(library.Decode(ids, &back).ok());
    EXPECT_EQ(t->encode(text), ids);
    EXPECT_EQ(t->decode(ids), back);
    StreamDecoder stream(*t);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), back);
  }
}

TEST(LoadTokenizer, FindsWhatWasSaved) {
  TempFolder dir;
  bytes_tokenizer()->save(dir.path());
  EXPECT_EQ(load_tokenizer(dir.path())->name(), "bytes");
  EXPECT_EQ(load_tokenizer("bytes")->fingerprint(), load_tokenizer(dir.path())->fingerprint());
  trained().save(dir.path());
  const auto loaded = load_tokenizer(dir.path());
  EXPECT_EQ(loaded->name(), "sentencepiece");
  EXPECT_EQ(loaded->fingerprint(), trained().fingerprint());
  EXPECT_EQ(loaded->encode("the \xE2\x96\x81 sea"), trained().encode("the \xE2\x96\x81 sea"));
  TempFolder empty;
  EXPECT_NE(error_of([&] { load_tokenizer(empty.path()); }).find("none of them"), std::string::npos);
  EXPECT_NE(error_of([&] { load_tokenizer(empty / "none"); }).find("No such file"), std::string::npos);
  spill(empty / "sennit_tokenizer.json", "{\"tokenizer\": \"runes\"}");
  EXPECT_NE(error_of([&] { load_tokenizer(empty.path()); }).find("bytes"), std::string::npos);
}

TEST(Utf8Stream, EmitsWholeCharactersOnly) {
  Utf8Stream s;
  EXPECT_EQ(s.push("a\xE4"), "a");
  EXPECT_EQ(s.push("\xBD"), "");
  EXPECT_EQ(s.push("\xA0z"), "\xE4\xBD\xA0z");
  EXPECT_EQ(s.push("\xF0\x9F"), "");
  EXPECT_EQ(s.push("x"), "\xEF\xBF\xBDx");
  EXPECT_EQ(s.push("\xff\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(s.push("\xE4\xBD"), "");
  EXPECT_EQ(s.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(s.finish(), "");
}

TEST(Utf8Stream, DoesNotDependOnThePieces) {
  Rng rng(5);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = random_utf8(rng);
    if (!bytes.empty()) bytes[rng.below(static_cast<int64_t>(bytes.size()))] = static_cast<char>(rng.bits());
    Utf8Stream whole, split;
    std::string want = whole.push(bytes);
    want += whole.finish();
    std::string got;
    for (const char c : bytes) got += split.push({&c, 1});
    got += split.finish();
    ASSERT_EQ(got, want);
    ASSERT_TRUE(is_utf8(got));
  }
}

TEST(StreamDecoder, PiecesTogetherAreTheText) {
  const auto bytes = bytes_tokenizer();
  for (const Tokenizer* t : {static_cast<const Tokenizer*>(bytes.get()), &trained()})
    for (const std::string& text : kHostile) {
      StreamDecoder stream(*t);
      std::string got;
      for (const int32_t id : t->encode(text)) {
        const std::string piece = stream.push(id);
        ASSERT_TRUE(is_utf8(piece));
        got += piece;
      }
      EXPECT_EQ(got + stream.finish(), text) << t->name();
    }
}

}  // namespace sennit::tokenizers::tokenizer_test
