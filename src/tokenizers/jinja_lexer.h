#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace sennit::tokenizers::jinja {

struct Token {
  enum Kind { text, print_open, print_close, block_open, block_close, name, string, integer, number, mark, end } kind;
  std::string value;  // of a string without its quotes and escapes
  size_t at;          // byte of the source
};

// Throws Error that names line and column of byte `at`.
[[noreturn]] void refuse(std::string_view source, size_t at, const std::string& expected, const std::string& found);

// Cuts a template into tokens, with blocks trimmed as Hugging Face's library does: the newline behind a block and the
// spaces before one at the start of a line are left out, and so is one newline at the end of the template.
std::vector<Token> tokens_of(std::string_view source);

}  // namespace sennit::tokenizers::jinja
