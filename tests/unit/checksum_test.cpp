#include "io/checksum.h"

#include <gtest/gtest.h>

#include <string>

namespace sennit::io::checksum_test {

TEST(Checksum, Xxh64KnownAnswers) {
  EXPECT_EQ(xxh64(""), 0xef46db3751d8e999u);
  EXPECT_EQ(xxh64("a"), 0xd24ec4f1a98c6e5bu);
  EXPECT_EQ(xxh64("abc"), 0x44bc2cf5ad770999u);
  EXPECT_EQ(xxh64("Nobody inspects the spammish repetition"), 0xfbcea83c8a378bf1u);  // longer than a stripe
}

TEST(Checksum, Xxh64DoesNotDependOnThePieces) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += static_cast<char>(i * 7 + 3);
  for (size_t length : {0, 1, 31, 32, 33, 63, 64, 65, 200})
    for (size_t piece = 1; piece < 70; ++piece) {
      Xxh64 hash;
      for (size_t at = 0; at < length; at += piece) hash.update(text.data() + at, std::min(piece, length - at));
      ASSERT_EQ(hash.digest(), xxh64(std::string_view(text).substr(0, length))) << length << " by " << piece;
    }
}

TEST(Checksum, Xxh64SeesEveryBit) {
  std::string text(77, 'x');
  const uint64_t before = xxh64(text);
  for (auto& c : text)
    for (int bit = 0; bit < 8; ++bit) {
      c = static_cast<char>(c ^ (1 << bit));
      ASSERT_NE(xxh64(text), before);
      c = static_cast<char>(c ^ (1 << bit));
    }
}

TEST(Checksum, Crc32cKnownAnswers) {  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

}  // namespace sennit::io::checksum_test
