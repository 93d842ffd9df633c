#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace sennit::tokenizers {

std::string to_base64(std::string_view bytes);

// The bytes that base64 text (RFC 4648, with its padding) stands for, or nothing when it is none.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace sennit::tokenizers
