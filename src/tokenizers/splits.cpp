#include "tokenizers/splits.h"

#include <algorithm>

#include "base/error.h"

namespace sennit::tokenizers {

Cut cut_named(const std::string& name, const std::string& where) {
  constexpr std::string_view kNames[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
  const auto it = std::find(std::begin(kNames), std::end(kNames), name);
  if (it == std::end(kNames))
    fail({"tokenizer", fmt::format("one of {}", fmt::join(kNames, ", ")), fmt::format("`{}`", name), where});
  return static_cast<Cut>(it - kNames);
}

namespace {

// Joins a span to the one before it where `joins(before, span)`.
template <class F>
void join(std::vector<Span>& spans, F&& joins) {
  std::vector<Span> out;
  bool before = false;
  for (const Span& s : spans) {
    if (!out.empty() && joins(before, s.delimiter))
      out.back().begin = std::min(out.back().begin, s.begin), out.back().end = std::max(out.back().end, s.end);
    else
      out.push_back(s);
    before = s.delimiter;
  }
  spans = std::move(out);
}

}  // namespace

void apply_cut(std::vector<Span>& spans, Cut cut) {
  const auto first_delimiter_joins = [](bool before, bool now) { return now && !before; };
  switch (cut) {
    case Cut::isolated:
      break;
    case Cut::removed:
      std::erase_if(spans, [](const Span& s) { return s.delimiter; });
      break;
    case Cut::contiguous:
      join(spans, [](bool before, bool now) { return before == now; });
      break;
    case Cut::merged_with_previous:
      join(spans, first_delimiter_joins);
      break;
    case Cut::merged_with_next:
      std::reverse(spans.begin(), spans.end());
      join(spans, first_delimiter_joins);
      std::reverse(spans.begin(), spans.end());
      break;
  }
}

}  // namespace sennit::tokenizers
