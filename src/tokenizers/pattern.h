#pragma once
#include <optional>
#include <string>

#include "tokenizers/json_part.h"
#include "tokenizers/regex.h"

namespace sennit::tokenizers {

// What a Split or Replace looks for: a text as it is, or a regular expression.
class Pattern {
 public:
  // `part` has a member "pattern": {"String": ...} or {"Regex": ...}.
  explicit Pattern(const JsonPart& part);
  explicit Pattern(Regex regex) : regex_(std::move(regex)) {}

  // Calls found(match) for the matches from left to right.
  template <class F>
  void each(std::string_view text, RegexBudget& budget, F&& found) const {
    Regex::Match m;
    if (regex_) {
      Matches matches(*regex_, text, budget);
      while (matches.next(m)) found(m);
      return;
    }
    for (size_t at = 0; (at = text.find(literal_, at)) != text.npos; at += literal_.size())
      found(Regex::Match{at, at + literal_.size()});
  }

 private:
  std::optional<Regex> regex_;
  std::string literal_;
};

}  // namespace sennit::tokenizers
