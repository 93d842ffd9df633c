#pragma once
#include <string>
#include <string_view>

namespace sennit {

// The start of a text read as UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
struct Utf8Start {
  enum Kind { whole, broken, partial } kind;
  int length;  // bytes of the character; of the longest broken run that begins one; all bytes left when partial
};

// `text` must not be empty. `partial` means that more bytes could complete the character.
Utf8Start utf8_start(std::string_view text);

bool is_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t code_point);  // a scalar value: at most U+10FFFF and no surrogate

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace sennit
