#include "tokenizers/regex.h"

#include <gtest/gtest.h>

#include <chrono>
#include <regex>

#include "base/rng.h"
#include "support/temp_folder.h"
#include "tokenizers/word_patterns.h"

namespace sennit::tokenizers::regex_test {

// The matches of a pattern, with "|" between them.
std::string found(std::string_view pattern, std::string_view text) {
  const Regex regex(pattern, "test");
  RegexBudget budget(text.size());
  Matches matches(regex, text, budget);
  std::string out;
  for (Regex::Match m; matches.next(m);)
    out.append(out.empty() ? "" : "|").append(text.substr(m.begin, m.end - m.begin));
  return out;
}

TEST(Regex, FindsFromLeftToRight) {
  EXPECT_EQ(found("a+", "baaacaa"), "aaa|aa");
  EXPECT_EQ(found("a|ab", "abab"), "a|a");
  EXPECT_EQ(found("x", "abc"), "");
  EXPECT_EQ(found("(?i:'s|'ll)", "it'S we'lL"), "'S|'lL");
  EXPECT_EQ(found("\\p{L}+|\\p{N}", "né12 你好"), "né|1|2|你好");
  EXPECT_EQ(found(kGpt2Words, "Hello  world's 12!\n"), "Hello| | world|'s| 12|!|\n");
}

TEST(Regex, EmptyMatchesStandBetweenCharacters) {
  const Regex regex("(?=\\d\\d\\d$)", "test");
  RegexBudget budget(0);
  Matches matches(regex, "1234567", budget);
  Regex::Match m;
  ASSERT_TRUE(matches.next(m));
  EXPECT_EQ(m.begin, 4u);
  EXPECT_EQ(m.end, 4u);
  EXPECT_FALSE(matches.next(m));
  EXPECT_FALSE(matches.next(m));
}

TEST(Regex, AnEmptyMatchIsNotRightBehindAnother) {
  const Regex regex("a*", "test");
  RegexBudget budget(0);
  Matches matches(regex, "aaébc", budget);
  std::vector<std::pair<size_t, size_t>> got;
  for (Regex::Match m; matches.next(m);) got.emplace_back(m.begin, m.end);
  EXPECT_EQ(got, (std::vector<std::pair<size_t, size_t>>{{0, 2}, {4, 4}, {5, 5}, {6, 6}}));
}

TEST(Regex, SpacesAreThoseOfUnicode) {
  const char* spaces[] = {"\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00a0",
                          "\u1680", "\u2000", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  for (const char* s : spaces) {
    EXPECT_EQ(found("\\s", s), s);
    EXPECT_EQ(found("[\\s]", s), s);
    EXPECT_EQ(found("\\S", s), "");
    EXPECT_EQ(found("[^\\s]", s), "");
  }
  for (const char* s : {"\u180e", "\u200b", "\ufeff", "x"}) {
    EXPECT_EQ(found("\\s", s), "");
    EXPECT_EQ(found("\\S", s), s);
  }
}

TEST(Regex, WordsHaveMarksAndConnectorsButNoFractions) {
  EXPECT_EQ(found("\\w+", "na\u0308ive_2 \u00bd\u2167"), "na\u0308ive_2|\u2167");
  EXPECT_EQ(found("\\W", "a-b"), "-");
  EXPECT_EQ(found("[\\w-]+", "a-b c"), "a-b|c");
}

TEST(Regex, LinesHaveEndsAndCodePointsNumbers) {
  EXPECT_EQ(found("^a", "a\na"), "a|a");
  EXPECT_EQ(found("b$", "b\nb"), "b|b");
  EXPECT_EQ(found("[\\u4e00-\\u9fa5]+", "x你好y"), "你好");
}

// Runs around the window and far beyond it, between characters of one, two and three bytes.
TEST(Regex, LongMatchesAreWhole) {
  for (const size_t n : {4090, 4094, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 100000})
    for (const std::string_view unit : {"a", "é", "你"}) {
      std::string run;
      while (run.size() < n) run += unit;
      EXPECT_EQ(found("\\p{L}+", "1" + run + "2"), run) << n;
      EXPECT_EQ(found("\\p{L}+", "1" + run + "2" + run), run + "|" + run) << n;
      EXPECT_EQ(found("\\d(?!\\p{L})", run + "1" + run + "2"), "2") << n;
    }
  const std::string spaces(5000, ' ');
  EXPECT_EQ(found("\\s+(?!\\S)|\\s+|\\S+", spaces + "x"), spaces.substr(1) + "| |x");
}

TEST(Regex, AgreesWithTheStandardLibraryOnAscii) {
  Rng rng(3);
  const std::string pattern = "[a-c]+d?|e(?=f)|[0-9]{1,3}| +";
  const std::regex standard(pattern);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (int64_t n = rng.below(30); n > 0; --n) text += "abcdef 0123"[rng.below(11)];
    std::string want;
    for (std::sregex_iterator it(text.begin(), text.end(), standard), end; it != end; ++it)
      want.append(want.empty() ? "" : "|").append(it->str());
    ASSERT_EQ(found(pattern, text), want) << text;
  }
}

TEST(Regex, SaysWhatIsWrongWithAPattern) {
  const auto error = [](const std::string& pattern) { return error_of([&] { Regex(pattern, "here"); }); };
  for (const char* bad : {"(", "[a", "a{2,1}", "\\p{Nonsense}", "*a", "(?<n>a)(?<n>b)", "\\h", "[a&&b]", "[a[b]]",
                          "(?C1)", "(*ACCEPT)", "\\Ka", ""}) {
    EXPECT_NE(error(bad), "") << bad;
    EXPECT_NE(error(bad).find("here"), std::string::npos) << bad;
  }
  EXPECT_NE(error(std::string(1000, '(') + "a" + std::string(1000, ')')), "");
  EXPECT_NE(error(std::string(100000, 'a')), "");
  EXPECT_NE(error("((a{1,999}){1,999}){1,999}"), "");
}

TEST(Regex, CatastrophesEndSoon) {
  std::string long_a(20000, 'a'), spaces(20000, ' ');
  struct Case {
    const char* pattern;
    const std::string& text;
  };
  for (const Case& c :
       {Case{"(a+)+[bc]", long_a}, Case{"(a|a)*[bc]", long_a}, Case{"(?:a*a*a*a*)*[bc]", long_a},
        Case{"(\\s*\\s*\\s*\\s*)+[xy]", spaces}, Case{"(?=(a+)+[bc])[xy]|a", long_a}, Case{"(?:(?:a?){20}){20}[bc]|a", long_a}}) {
    const auto start = std::chrono::steady_clock::now();
    const std::string error = error_of([&] { found(c.pattern, c.text); });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    EXPECT_NE(error.find("regex"), std::string::npos) << c.pattern << ": " << error;
    EXPECT_LT(took.count(), 5.0) << c.pattern;
  }
}

}  // namespace sennit::tokenizers::regex_test
