#include "io/json_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/temp_folder.h"

namespace sennit::io::json_file_test {

Json parse(std::string_view text) {
  return parse_json(text, "t.json");
}
std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  return error_of([&] { parse_json(text, "t.json", limits); });
}

TEST(Json, AgreesWithAnotherParserOnGoodTexts) {
  for (const char* text : {"0",
                           "-0",
                           "1",
                           "-1",
                           "9223372036854775807",
                           "-9223372036854775808",
                           "18446744073709551615",
                           "18446744073709551616",
                           "1.5",
                           "-2.25e-3",
                           "1E+5",
                           "1e-400",
                           "5e-324",
                           "0.1",
                           "123456789012345678901234567890",
                           "true",
                           "false",
                           "null",
                           "\"\"",
                           "[]",
                           "{}",
                           " [ 1 , 2 ] ",
                           "{\"a\":{\"b\":[{},[],null]}}",
                           "\"\\u00e9\\ud83d\\ude00\\n\\/\"",
                           "\"\xc3\xa9\xf0\x9f\x98\x80\"",
                           "\xEF\xBB\xBF[1]",
                           "{\"b\":1,\"a\":2}",
                           "\"\\u0000\""}) {
    const Json want = Json::parse(text), got = parse(text);
    EXPECT_EQ(got, want) << text;
    EXPECT_EQ(got.type(), want.type()) << text;
    EXPECT_EQ(json_text(got), json_text(want)) << text;
  }
}

TEST(Json, RefusesWhatAnotherParserRefuses) {
  for (const char* text : {"",
                           " ",
                           "[",
                           "]",
                           "[1",
                           "[1,",
                           "[1,]",
                           "{",
                           "{\"a\"",
                           "{\"a\":",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{1:2}",
                           "01",
                           "-",
                           "+1",
                           ".5",
                           "1.",
                           "1e",
                           "1e+",
                           "0x1",
                           "tru",
                           "nulll",
                           "NaN",
                           "Infinity",
                           "-Infinity",
                           "\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\ud800\"",
                           "\"\\ud800\\u0041\"",
                           "\"\\udc00\"",
                           "\"\t\"",
                           "\"\x80\"",
                           "\"\xc3\"",
                           "\"\xed\xa0\x80\"",
                           "1 2",
                           "[1]]",
                           "'a'",
                           "// x\n1",
                           "1e400",
                           "-1e999",
                           "\x01",
                           "[1 2]"}) {
    EXPECT_FALSE(Json::accept(text)) << text;
    EXPECT_THROW(parse(text), Error) << text;
  }
}

TEST(Json, ErrorsNameLineAndColumn) {
  EXPECT_EQ(refusal("{\n  \"\xc3\xa9\": tru\n}"), "JSON: expected a value, got `t` (t.json:2:8)");
  EXPECT_EQ(refusal("{\"a\": 1,\n \"b\": 2, \"a\": 3}"), "JSON: expected each key once, got `a` again (t.json:2:10)");
  EXPECT_EQ(refusal("[1, 2"), "JSON: expected `,` or `]` after an item, got the end of the text (t.json:1:6)");
  EXPECT_EQ(refusal(std::string_view("[\0]", 3)), "JSON: expected a value, got byte 0x00 (t.json:1:2)");
}

TEST(Json, DepthValuesAndBytesAreBounded) {
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_NO_THROW(parse(nested(65)));
  EXPECT_NE(refusal(nested(66)).find("64 levels"), std::string::npos);
  EXPECT_NE(refusal(std::string(1000000, '[')).find("64 levels"), std::string::npos);
  EXPECT_NE(refusal("[1,2,3]", {.max_values = 3}).find("3 values"), std::string::npos);
  EXPECT_NO_THROW(parse_json("[1,2,3]", "t.json", {.max_values = 4}));
  EXPECT_NE(refusal("[1,2,3]", {.max_bytes = 6}).find("6 bytes"), std::string::npos);
}

TEST(Json, NonFiniteNumbersByOption) {
  const Json j = parse_json("[0.0, Infinity, -Infinity, NaN]", "t.json", {.non_finite = true});
  EXPECT_EQ(j[1].get<double>(), INFINITY);
  EXPECT_EQ(j[2].get<double>(), -INFINITY);
  EXPECT_TRUE(std::isnan(j[3].get<double>()));
}

TEST(Json, ManyKeysTakeNearlyLinearTime) {
  std::string text = "{\"k0\":0";
  for (int i = 1; i < 200000; ++i) text += ",\"k" + std::to_string(i) + "\":" + std::to_string(i);
  const Json j = parse(text + "}");
  EXPECT_EQ(j.size(), 200000u);
  EXPECT_NE(refusal(text + ",\"k77\":1}").find("`k77` again"), std::string::npos);
}

TEST(Json, FilesGoRound) {
  TempFolder dir;
  const Json value = {{"b", 1}, {"a", {1.5, "x\n", nullptr}}};
  write_json_file(dir / "x.json", value);
  EXPECT_EQ(read_json_file(dir / "x.json"), value);
  EXPECT_EQ(slurp(dir / "x.json").back(), '\n');
  spill(dir / "bad.json", "{\n\"a\" 1}");
  EXPECT_NE(error_of([&] { read_json_file(dir / "bad.json"); }).find(dir / "bad.json:2:5"), std::string::npos);
}

TEST(Json, EveryTruncationAndBitFlipIsReadOrRefused) {
  const std::string good = R"({"a": [1, -2.5e3, "\u00e9 \ud83d\ude00", true, null], "b": {"c": {}}})";
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THROW(parse(good.substr(0, n)), Error) << n;
  for (size_t i = 0; i < good.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      const bool fine = Json::accept(bad);
      try {
        parse(bad);
        EXPECT_TRUE(fine) << bad;
      } catch (const Error& e) {
        EXPECT_TRUE(!fine || std::string(e.what()).find("each key once") != std::string::npos) << bad << e.what();
      }
    }
}

}  // namespace sennit::io::json_file_test
