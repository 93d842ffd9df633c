#include "tokenizers/unicode.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace sennit::tokenizers::unicode {
namespace {

bool in_category(char32_t c, uint32_t mask) {
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & mask) != 0;
}

const icu::Normalizer2& normalizer(Form form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* n = form == Form::nfc    ? icu::Normalizer2::getNFCInstance(status)
                              : form == Form::nfd  ? icu::Normalizer2::getNFDInstance(status)
                              : form == Form::nfkc ? icu::Normalizer2::getNFKCInstance(status)
                                                   : icu::Normalizer2::getNFKDInstance(status);
  SENNIT_CHECK(U_SUCCESS(status), "ICU has no normalization data: {}", u_errorName(status));
  return *n;
}

}  // namespace

char32_t next(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  const size_t length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  char32_t c = length == 1 ? lead : lead & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) c = c << 6 | (byte(at + i) & 0x3f);
  at += length;
  return c;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

bool is_space(char32_t c) {
  return u_isUWhiteSpace(static_cast<UChar32>(c));
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
  return in_category(c, U_GC_P_MASK);
}

bool is_number(char32_t c) {
  return in_category(c, U_GC_N_MASK);
}

bool is_mark(char32_t c) {
  return in_category(c, U_GC_M_MASK);
}

bool is_nonspacing_mark(char32_t c) {
  return in_category(c, U_GC_MN_MASK);
}

bool is_control(char32_t c) {
  return in_category(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK | U_GC_CS_MASK);
}

bool is_word(char32_t c) {
  return u_isUAlphabetic(static_cast<UChar32>(c)) || in_category(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         c == 0x200c || c == 0x200d;
}

bool is_han(char32_t c) {
  constexpr char32_t kBlocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                     {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  return std::any_of(std::begin(kBlocks), std::end(kBlocks), [c](const auto& b) { return c >= b[0] && c <= b[1]; });
}

std::string normalize(Form form, std::string text) {
  if (is_ascii(text)) return text;
  const icu::Normalizer2& n = normalizer(form);
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  UErrorCode status = U_ZERO_ERROR;
  if (n.isNormalizedUTF8(piece, status)) return text;
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  n.normalizeUTF8(0, piece, sink, nullptr, status);
  SENNIT_CHECK(U_SUCCESS(status), "ICU: {}", u_errorName(status));
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for_each_char(text, [&](char32_t c, std::string_view) {
    if (c == 0x130)  // the only letter that becomes two
      out += "i\xCC\x87";
    else
      append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
  });
  return out;
}

}  // namespace sennit::tokenizers::unicode
