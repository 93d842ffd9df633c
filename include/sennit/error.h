#pragma once
#include <stdexcept>
#include <string>

namespace sennit {

// What went wrong with something that came from outside: a file, a flag, a request, a number.
// Reads as "who: expected X, got Y (where)".
struct Problem {
  std::string who;
  std::string expected;
  std::string found;
  std::string where = {};
};

// The one exception family for bad input. `problem()` keeps the parts for machines, `what()` is the sentence.
class Error : public std::runtime_error {
 public:
  explicit Error(Problem p);
  const Problem& problem() const { return problem_; }

 private:
  Problem problem_;
};

// A broken promise inside the engine: always a bug of ours.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

}  // namespace sennit
