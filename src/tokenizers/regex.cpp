#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizers/regex.h"

#include <pcre2.h>
#include <time.h>

#include <algorithm>

#include "base/error.h"

namespace sennit::tokenizers {
namespace {

constexpr size_t kWindow = 4096;          // bytes that the compiled code sees at once
constexpr uint32_t kShortSteps = 50'000;  // in a window, for each start
constexpr size_t kLongestPattern = 1 << 16;

double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

template <auto Free>
struct Freeing {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using MatchData = std::unique_ptr<pcre2_match_data, Freeing<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freeing<pcre2_match_context_free>>;

// Each thread has its own, for all patterns: only the ends of the whole match are asked for.
struct Scratch {
  MatchData data{pcre2_match_data_create(1, nullptr)};
  MatchContext quick{pcre2_match_context_create(nullptr)}, patient{pcre2_match_context_create(nullptr)};
  Scratch() {
    pcre2_set_match_limit(quick.get(), kShortSteps);
    pcre2_set_heap_limit(patient.get(), 64 << 10);  // KiB
  }
};

Scratch& scratch() {
  thread_local Scratch s;
  return s;
}

// White_Space, which PCRE2's \s is not: that takes U+180E too. In the form of a class's inside.
constexpr std::string_view kSpace =
    R"(\x09-\x0d \x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9})";

// Rewrites what the two syntaxes read differently.
std::string translate(std::string_view pattern, const std::string& where) {
  std::string out;
  bool in_class = false;
  const auto refuse = [&](const std::string& what) {
    fail({"regex", "a pattern without " + what, std::string(pattern.substr(0, 200)), where});
  };
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char name = pattern[++i];
      if (name == 'u' && i + 4 < pattern.size()) {
        out += fmt::format("\\x{{{}}}", pattern.substr(i + 1, 4));
        i += 4;
        continue;
      }
      const std::string_view set = name == 's' || name == 'S' ? kSpace : name == 'w' || name == 'W' ? kWord : "";
      if (name == 'h' || name == 'H' || name == 'K' || name == 'C') refuse(fmt::format("\\{}", name));
      const bool negated = name == 'S' || name == 'W';
      if (set.empty() || (in_class && negated))
        out += c, out += name;
      else
        out += in_class ? std::string(set) : fmt::format("[{}{}]", negated ? "^" : "", set);
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      out += c;
      if (pattern.substr(i + 1).starts_with('^')) out += pattern[++i];
      continue;
    }
    if (in_class && c == ']') in_class = false;
    if (in_class && pattern.substr(i).starts_with("&&")) refuse("&& in a class");
    if (in_class && c == '[') {
      if (!pattern.substr(i).starts_with("[:")) refuse("a class inside a class");
    }
    if (!in_class && pattern.substr(i).starts_with("(?C")) refuse("(?C");
    if (!in_class && pattern.substr(i).starts_with("(*")) refuse("(*");
    out += c;
  }
  return out;
}

}  // namespace

struct Regex::Code {
  struct Free {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  };
  std::unique_ptr<pcre2_code, Free> code;
  std::string pattern, where;
};

RegexBudget::RegexBudget(size_t bytes) : deadline_(processor_seconds() + 0.5 + 1e-5 * static_cast<double>(bytes)) {}

void RegexBudget::check() {
  if (++calls_ % 64 == 0 && processor_seconds() > deadline_)
    fail({"regex", "patterns that split text in good time", "patterns that take too long"});
}

Regex::Regex(std::string_view pattern, const std::string& where) : code_(std::make_unique<Code>()) {
  if (pattern.empty() || pattern.size() > kLongestPattern)
    fail({"regex", fmt::format("a pattern of 1 to {} bytes", kLongestPattern), fmt::format("{}", pattern.size()),
          where});
  const std::string ours = translate(pattern, where);
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::unique_ptr<pcre2_compile_context, Freeing<pcre2_compile_context_free>> context(
      pcre2_compile_context_create(nullptr));
  pcre2_set_parens_nest_limit(context.get(), 64);
  pcre2_set_max_pattern_length(context.get(), 16 * kLongestPattern);
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(ours.data()), ours.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE, &error,
                    &at, context.get());
  if (code == nullptr) {
    char message[256] = {};
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof(message));
    fail({"regex", "a pattern", fmt::format("`{}`: {} at byte {}", ours.substr(0, 200), message, at), where});
  }
  code_->code.reset(code);
  code_->pattern = pattern, code_->where = where;
  size_t bytes = 0;
  pcre2_pattern_info(code, PCRE2_INFO_SIZE, &bytes);
  if (bytes > (4u << 20))
    fail({"regex", "a pattern that compiles to 4 MiB at most", fmt::format("{} bytes", bytes), where});
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);  // where it cannot, matching interprets
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

// Compiled code sees a window at a time, so that no search takes long; where a match does not end in its window, or
// needs too many steps, the interpreter, which counts its steps strictly, looks at the whole rest.
bool Regex::search(std::string_view text, size_t from, Match& match) const {
  const Scratch& s = scratch();
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(s.data.get());
  while (true) {
    size_t end = std::min(from + kWindow, text.size());
    while (end < text.size() && (text[end] & 0xc0) == 0x80) --end;
    const bool last = end == text.size();
    int found = pcre2_match(code_->code.get(), subject, end, from, PCRE2_NO_UTF_CHECK | (last ? 0 : PCRE2_PARTIAL_HARD),
                            s.data.get(), s.quick.get());
    if (found == PCRE2_ERROR_NOMATCH && last) return false;
    if (found == PCRE2_ERROR_NOMATCH || (found == PCRE2_ERROR_PARTIAL && ends[0] > from)) {
      from = found == PCRE2_ERROR_NOMATCH ? end : ends[0];
      continue;
    }
    if (found < 0) {
      pcre2_set_match_limit(s.patient.get(),
                            static_cast<uint32_t>(std::min<size_t>(200'000 + 8 * (text.size() - from), 1u << 28)));
      found = pcre2_match(code_->code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                          s.data.get(), s.patient.get());
      if (found == PCRE2_ERROR_NOMATCH) return false;
    }
    if (found < 0 || ends[0] > ends[1])
      fail({"regex", "a pattern that matches in a bounded number of steps",
            fmt::format("`{}`, which does not (PCRE2 says {})", code_->pattern.substr(0, 200), found), code_->where});
    match = {ends[0], ends[1]};
    return true;
  }
}

bool Matches::next(Regex::Match& match) {
  while (at_ <= text_.size()) {
    budget_.check();
    if (!regex_.search(text_, at_, match)) break;
    const bool empty = match.begin == match.end;
    at_ = match.end;
    if (empty) do
        ++at_;
      while (at_ < text_.size() && (text_[at_] & 0xc0) == 0x80);
    if (empty && match.begin == last_end_) continue;
    last_end_ = match.end;
    return true;
  }
  at_ = text_.size() + 1;
  return false;
}

}  // namespace sennit::tokenizers
