#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sennit::tokenizers {

// What becomes of the delimiters at which a text is cut.
enum class Cut { removed, isolated, merged_with_previous, merged_with_next, contiguous };

// Throws Error with `where` for an unknown name ("MergedWithNext").
Cut cut_named(const std::string& name, const std::string& where);

struct Span {
  size_t begin, end;
  bool delimiter;
};

// `spans` cover a text from left to right; merges or drops delimiters. With Cut::removed only the others stay.
void apply_cut(std::vector<Span>& spans, Cut cut);

}  // namespace sennit::tokenizers
