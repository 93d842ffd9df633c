#pragma once
#include <fmt/format.h>

#include <string>

#include "sennit/error.h"

namespace sennit {

[[noreturn]] void fail(Problem p);

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}  // namespace detail

// The closest of `known` to `word`, or "" when nothing is near: for "did you mean" hints.
template <class Strings>
std::string closest(const std::string& word, const Strings& known);
int edit_distance(const std::string& a, const std::string& b);

template <class Strings>
std::string closest(const std::string& word, const Strings& known) {
  std::string best;
  int least = 1 + static_cast<int>(word.size()) / 2;
  for (const auto& k : known) {
    const int d = edit_distance(word, k);
    if (d < least) least = d, best = k;
  }
  return best;
}

}  // namespace sennit

// On in every build; kernels do not use it.
#define SENNIT_CHECK(condition, ...)                                                                 \
  do {                                                                                               \
    if (!(condition)) [[unlikely]]                                                                   \
      ::sennit::detail::check_failed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
  } while (false)
