#include "tokenizers/byte_level.h"

#include <array>

#include "base/utf8.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers::byte_level {
namespace {

// Bytes that are printable in Latin-1 are themselves; the others follow from U+0100 in order.
struct Alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int, 512> of_char{};

  constexpr Alphabet() {
    of_char.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool shown = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      of_byte[b] = shown ? static_cast<char32_t>(b) : next++;
      of_char[of_byte[b]] = b;
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

std::string to_chars(std::string_view bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (const char b : bytes) append_utf8(out, kAlphabet.of_byte[static_cast<unsigned char>(b)]);
  return out;
}

std::optional<std::string> to_bytes(std::string_view chars) {
  std::string out;
  out.reserve(chars.size());
  for (size_t at = 0; at < chars.size();) {
    const char32_t c = unicode::next(chars, at);
    if (c >= kAlphabet.of_char.size() || kAlphabet.of_char[c] < 0) return std::nullopt;
    out += static_cast<char>(kAlphabet.of_char[c]);
  }
  return out;
}

}  // namespace sennit::tokenizers::byte_level
