#include "tokenizers/pattern.h"

#include "base/error.h"

namespace sennit::tokenizers {

Pattern::Pattern(const JsonPart& part) {
  const JsonPart pattern = part.part("pattern");
  if (pattern.has("Regex")) {
    regex_.emplace(pattern.text("Regex"), pattern.where());
    return;
  }
  literal_ = pattern.text("String");
  if (literal_.empty()) pattern.refuse("String", "a text", "an empty one");
}

}  // namespace sennit::tokenizers
