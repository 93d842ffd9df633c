// The main function of the test programs. Beside GoogleTest's own options:
//   --only=FILE  run the tests of FILE.cpp alone
//   --speed      run what is said of speed (tests whose suite or name begins with Speed), and only that
//   --trained    run what is said of trained models (tests whose name begins with Trained), and only that
// With neither, all but those two kinds.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

namespace {

enum class Kind { plain, speed, trained };

Kind kind_of(const testing::TestSuite& suite, const testing::TestInfo& test) {
  const std::string_view whole = suite.name(), family = whole.substr(whole.find('/') + 1), name = test.name();
  if (family.starts_with("Speed") || name.starts_with("Speed")) return Kind::speed;
  return name.starts_with("Trained") ? Kind::trained : Kind::plain;
}

// A filter of GoogleTest: the tests of `file` (all where it is empty) of one kind.
std::string tests_of(const std::string& file, Kind kind) {
  std::string all;
  const testing::UnitTest& program = *testing::UnitTest::GetInstance();
  for (int s = 0; s < program.total_test_suite_count(); ++s) {
    const testing::TestSuite& suite = *program.GetTestSuite(s);
    for (int t = 0; t < suite.total_test_count(); ++t) {
      const testing::TestInfo& test = *suite.GetTestInfo(t);
      const bool here = file.empty() || std::filesystem::path(test.file()).stem() == file;
      if (here && kind_of(suite, test) == kind) all += std::string(all.empty() ? "" : ":") + suite.name() + "." + test.name();
    }
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::string file;
  Kind kind = Kind::plain;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--only=")) file = argument.substr(7);
    else if (argument == "--speed") kind = Kind::speed;
    else if (argument == "--trained") kind = Kind::trained;
    else return std::fprintf(stderr, "%s: unknown option %s\n", argv[0], argv[i]), 2;
  }
  if (!file.empty() || testing::GTEST_FLAG(filter) == "*") {
    testing::GTEST_FLAG(filter) = tests_of(file, kind);
    if (testing::GTEST_FLAG(filter).empty()) {
      bool other = kind != Kind::plain;
      for (const Kind k : {Kind::speed, Kind::trained}) other = other || !tests_of(file, k).empty();
      if (!other) return std::fprintf(stderr, "%s: no tests in %s\n", argv[0], file.c_str()), 2;
      return std::printf("[  PASSED  ] 0 tests: all of %s are of another kind.\n", file.c_str()), 0;
    }
  }
  return RUN_ALL_TESTS();
}
