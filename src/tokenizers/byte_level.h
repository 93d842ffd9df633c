#pragma once
#include <optional>
#include <string>
#include <string_view>

// The alphabet of byte-level vocabularies (GPT-2): each byte is written as one character that can be seen; a space is
// "Ġ", a newline "Ċ".
namespace sennit::tokenizers::byte_level {

std::string to_chars(std::string_view bytes);
// The bytes that a token stands for, or nothing when it has a character outside the alphabet.
std::optional<std::string> to_bytes(std::string_view chars);

}  // namespace sennit::tokenizers::byte_level
