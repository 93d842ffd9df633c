#pragma once
#include <string>
#include <string_view>

// What the Unicode standard says of characters and texts. Texts are UTF-8 without faults.
namespace sennit::tokenizers::unicode {

// U+2581, which stands for a space in the pieces of SentencePiece and of those after it.
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

// The character that starts at text[at]; moves `at` behind it.
char32_t next(std::string_view text, size_t& at);
bool is_ascii(std::string_view text);

bool is_space(char32_t c);            // White_Space
bool is_punctuation(char32_t c);      // categories P*, and the ASCII marks that are none, such as $ and +
bool is_number(char32_t c);           // N*
bool is_mark(char32_t c);             // M*
bool is_nonspacing_mark(char32_t c);  // Mn
bool is_control(char32_t c);          // Cc, Cf, Co, Cs
bool is_word(char32_t c);             // \w: alphabetic, marks, decimal digits, connectors, joiners
bool is_han(char32_t c);              // the ideograph blocks that BERT sets apart

enum class Form { nfc, nfd, nfkc, nfkd };
std::string normalize(Form form, std::string text);

// Each character by itself, as if it stood alone: no final sigma.
std::string lower(std::string_view text);

template <class F>
void for_each_char(std::string_view text, F&& f) {
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next(text, at);
    f(c, text.substr(begin, at - begin));
  }
}

}  // namespace sennit::tokenizers::unicode
