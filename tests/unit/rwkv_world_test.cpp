// RWKV's vocabulary: the longest token that fits, in its own file and in GGUF.
#include "tokenizers/rwkv_world.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/rng.h"
#include "io/mapped_file.h"
#include "model/vocabulary.h"
#include "support/temp_folder.h"

namespace sennit::tokenizers::rwkv_world_test {

const std::vector<std::string> kWords = {"ab",     "abc",          "abcde", "'",   "it's",     "\n\n",
                                         "\u00e9", "\u4f60\u597d", "\\",    "\"'", "\xf0\x9f", " the"};

// Ids 1 to 256 are the bytes, as in the real file; texts are written as Python does.
std::string file() {
  std::string lines;
  for (int byte = 0; byte < 256; ++byte)
    lines += byte < 0x80 ? fmt::format("{} '\\x{:02x}' 1\n", byte + 1, byte)
                         : fmt::format("{} b'\\x{:02x}' 1\n", byte + 1, byte);
  return lines +
         "257 'ab' 2\n258 'abc' 3\n259 \"abcde\" 5\n261 \"it's\" 4\n262 '\\n\\n' 2\n263 '\\xe9' 2\n264 '\u4f60\\u597d' "
         "6\n"
         "266 '\"\\'' 2\n267 b'\\xf0\\x9f' 2\r\n300 ' the' 4\n";
}

TEST(RwkvWorld, TakesTheLongestTokenThatFits) {
  const auto t = read_rwkv_world(file(), "test");
  EXPECT_EQ(t->vocab_size(), 301);
  const auto ids = [&](std::string_view text) { return t->encode(text); };
  EXPECT_EQ(ids("abcd"), (std::vector<int32_t>{258, 'd' + 1}));
  EXPECT_EQ(ids("abcde ab"), (std::vector<int32_t>{259, ' ' + 1, 257}));
  EXPECT_EQ(ids("it's the\n\n"), (std::vector<int32_t>{261, 300, 262}));
  EXPECT_EQ(ids("\u00e9\u4f60\u597d\"'"), (std::vector<int32_t>{263, 264, 266}));
  EXPECT_EQ(ids("\xf0\x9f\x98"), (std::vector<int32_t>{267, 0x98 + 1}));
  EXPECT_TRUE(t->is_special(0));
  EXPECT_TRUE(t->is_special(280)) << "a gap";
  EXPECT_EQ(t->piece(262), "\\n\\n");
}

// Every string of bytes comes back; the same ids after saving and through GGUF.
TEST(RwkvWorld, GoesRoundThroughItsFileAndGguf) {
  const auto t = read_rwkv_world(file(), "test");
  TempFolder dir;
  t->save(dir.path());
  const auto saved = load_tokenizer(dir.path()), gguf = tokenizer_of(gguf_vocabulary(t.get(), 310), "test");
  EXPECT_EQ(saved->fingerprint(), t->fingerprint());
  EXPECT_EQ(gguf->vocab_size(), 310);
  EXPECT_EQ(gguf->special().eos, 0);
  Rng rng(1);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (uint64_t n = rng.below(12); n > 0; --n)
      text += rng.below(3) ? kWords[rng.below(kWords.size())] : std::string(1, static_cast<char>(rng.below(256)));
    const auto ids = t->encode(text);
    ASSERT_EQ(t->decode(ids), text);
    ASSERT_EQ(saved->encode(text), ids);
    ASSERT_EQ(gguf->encode(text), ids);
    ASSERT_EQ(gguf->decode(ids), text);
  }
}

TEST(RwkvWorld, BrokenFilesAreOneError) {
  const auto says = [](const std::string& text, const std::string& words) {
    const std::string e = error_of([&] { read_rwkv_world(text, "name.txt"); });
    EXPECT_NE(e.find(words), std::string::npos) << e;
    EXPECT_NE(e.find("name.txt"), std::string::npos) << e;
  };
  says(file() + "301 'x' 2\n", "`301 'x' 2`");
  says(file() + "0 'xy' 2\n", "an id from 1");
  says(file() + "99999999999 'xy' 2\n", "an id from 1");
  says("2000000 'x' 1\n", "an id from 1 to 4097");  // would be a vocabulary of two million gaps
  says(file() + "301 'xy 2\n", "as Python writes it");
  says(file() + "301 '\\x1' 1\n", "as Python writes it");
  says(file() + "301 b'\\' 1\n", "as Python writes it");
  says(file() + "301 'abc' 3\n", "each token once");
  says("1 'a' 1\n", "a token for each byte");
  EXPECT_NE(error_of([] {
              rwkv_world_of_gguf({"<s>", "\\x0"}, {}, "name.txt");
            }).find("whole escapes"),
            std::string::npos);
}

}  // namespace sennit::tokenizers::rwkv_world_test
