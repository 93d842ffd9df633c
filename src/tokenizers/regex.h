#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace sennit::tokenizers {

// The processor time that patterns from outside may take over one text. Ordinary ones need some 0.05 microseconds a
// byte.
class RegexBudget {
 public:
  explicit RegexBudget(size_t bytes);
  void check();  // throws Error when it is spent

 private:
  double deadline_;
  int calls_ = 0;
};

// A regular expression of a tokenizer, written in Oniguruma's Ruby syntax and run by PCRE2: `\s` and `\w` are those of
// Unicode, `^` and `$` stand at lines. Safe to use from many threads.
class Regex {
 public:
  // Throws Error with `where` for a pattern that is broken, too large, or means something else in PCRE2.
  Regex(std::string_view pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Match {
    size_t begin = 0, end = 0;
  };
  // The leftmost match that starts at `from` or behind it; false when there is none. Throws Error when the pattern
  // needs more steps than a sound one could.
  bool search(std::string_view text, size_t from, Match& match) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

// The matches of a pattern in a text from left to right, empty ones among them, none right behind another's end.
class Matches {
 public:
  Matches(const Regex& regex, std::string_view text, RegexBudget& budget)
      : regex_(regex), text_(text), budget_(budget) {}
  bool next(Regex::Match& match);

 private:
  const Regex& regex_;
  std::string_view text_;
  RegexBudget& budget_;
  size_t at_ = 0, last_end_ = std::string_view::npos;
};

}  // namespace sennit::tokenizers
