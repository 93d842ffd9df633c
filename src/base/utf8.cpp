#include "base/utf8.h"

namespace sennit {

Utf8Start utf8_start(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {Utf8Start::whole, 1};
  const int length = first >= 0xc2 && first <= 0xdf   ? 2
                     : (first & 0xf0) == 0xe0         ? 3
                     : first >= 0xf0 && first <= 0xf4 ? 4
                                                      : 0;
  if (length == 0) return {Utf8Start::broken, 1};
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {Utf8Start::partial, i};
    unsigned char low = 0x80, high = 0xbf;
    if (i == 1) {
      if (first == 0xe0)
        low = 0xa0;  // overlong
      else if (first == 0xed)
        high = 0x9f;  // surrogates
      else if (first == 0xf0)
        low = 0x90;  // overlong
      else if (first == 0xf4)
        high = 0x8f;  // above U+10FFFF
    }
    if (byte(i) < low || byte(i) > high) return {Utf8Start::broken, i};
  }
  return {Utf8Start::whole, length};
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Start start = utf8_start(text);
    if (start.kind != Utf8Start::whole) return false;
    text.remove_prefix(start.length);
  }
  return true;
}

void append_utf8(std::string& out, char32_t c) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | (c >> 12));
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xf0 | (c >> 18));
    tail(12), tail(6), tail(0);
  }
}

}  // namespace sennit
