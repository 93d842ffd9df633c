#include "tokenizers/jinja_lexer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace sennit::tokenizers::jinja {
namespace {

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source), stop_(source.size()) {
    if (source.ends_with('\n')) --stop_;
    if (source.substr(0, stop_).ends_with('\r')) --stop_;
  }

  std::vector<Token> run() {
    while (at_ < stop_) {
      const size_t open = next_tag();
      add_text(open);
      at_ = open;
      if (at_ >= stop_) break;
      const char kind = source_[at_ + 1];
      at_ += 2;
      if (peek() == '-' || peek() == '+') ++at_;
      if (kind == '#')
        skip_comment(open);
      else
        read_tag(open, kind == '{');
    }
    tokens_.push_back({Token::end, "", stop_});
    return std::move(tokens_);
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < stop_ ? source_[at_ + ahead] : '\0'; }
  std::string_view rest() const { return source_.substr(at_, stop_ - at_); }

  size_t next_tag() const {
    for (size_t i = at_; i + 1 < stop_; ++i)
      if (source_[i] == '{' && (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#')) return i;
    return stop_;
  }

  // The text up to a tag, without what the tag before it and this one trim.
  void add_text(size_t end) {
    std::string_view text = source_.substr(at_, end - at_);
    if (trim_left_)
      while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    const bool tag = end < stop_;
    const char sign = tag && end + 2 < stop_ ? source_[end + 2] : '\0';
    if (tag && sign == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    } else if (tag && sign != '+' && source_[end + 1] != '{') {
      const size_t line = text.rfind('\n') + 1;  // 0 without one
      const std::string_view last = text.substr(line);
      const bool starts = line > 0 || at_ == 0 || source_[at_ - 1] == '\n';
      if (starts && std::all_of(last.begin(), last.end(), is_space)) text.remove_suffix(last.size());
    }
    trim_left_ = false;
    std::string out;
    for (size_t i = 0; i < text.size(); ++i)
      if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') out += text[i];
    if (!out.empty()) tokens_.push_back({Token::text, std::move(out), at_});
  }

  // Behind a closing mark that began with `sign`.
  void close(char sign, bool trims_newline) {
    trim_left_ = sign == '-';
    if (sign != '\0' || !trims_newline) return;
    if (rest().starts_with("\r\n"))
      at_ += 2;
    else if (peek() == '\n')
      ++at_;
  }

  void skip_comment(size_t open) {
    const size_t end = source_.substr(0, stop_).find("#}", at_);
    if (end == source_.npos) refuse(source_, open, "#} behind a comment", "the end of the template");
    const char sign = end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+') ? source_[end - 1] : '\0';
    at_ = end + 2;
    close(sign, true);
  }

  void read_tag(size_t open, bool print) {
    tokens_.push_back({print ? Token::print_open : Token::block_open, "", open});
    const std::string_view closing = print ? "}}" : "%}";
    std::vector<char> brackets;
    while (true) {
      while (at_ < stop_ && is_space(peek())) ++at_;
      if (at_ >= stop_) refuse(source_, open, fmt::format("{} behind a tag", closing), "the end of the template");
      const char sign = peek() == '-' || peek() == '+' ? peek() : '\0';
      if (brackets.empty() && source_.substr(at_ + (sign != '\0')).starts_with(closing)) {
        tokens_.push_back({print ? Token::print_close : Token::block_close, "", at_});
        at_ += 2 + (sign != '\0');
        return close(sign, !print);
      }
      read_token(brackets);
    }
  }

  void read_token(std::vector<char>& brackets) {
    const size_t begin = at_;
    const char c = peek();
    if (c == '\'' || c == '"') return read_string(c);
    if (is_letter(c)) {
      while (is_letter(peek()) || is_digit(peek())) ++at_;
      tokens_.push_back({Token::name, std::string(source_.substr(begin, at_ - begin)), begin});
      return;
    }
    if (is_digit(c)) return read_number();
    constexpr std::string_view kTwo[] = {"==", "!=", "<=", ">=", "//", "**"};
    const bool two = std::find(std::begin(kTwo), std::end(kTwo), rest().substr(0, 2)) != std::end(kTwo);
    if (!two && std::string_view("+-*/%~<>=|.,:()[]{}").find(c) == std::string_view::npos)
      refuse(source_, at_, "part of an expression", fmt::format("`{}`", rest().substr(0, utf8_start(rest()).length)));
    if (c == '(' || c == '[' || c == '{') brackets.push_back(c);
    if ((c == ')' || c == ']' || c == '}') && !brackets.empty()) brackets.pop_back();
    at_ += two ? 2 : 1;
    tokens_.push_back({Token::mark, std::string(source_.substr(begin, at_ - begin)), begin});
  }

  void read_number() {
    const size_t begin = at_;
    const auto digits = [&] {
      while (is_digit(peek()) || (peek() == '_' && is_digit(peek(1)))) ++at_;
    };
    digits();
    bool whole = true;
    if (peek() == '.' && is_digit(peek(1))) ++at_, digits(), whole = false;
    const size_t sign = peek(1) == '+' || peek(1) == '-' ? 2 : 1;
    if ((peek() == 'e' || peek() == 'E') && is_digit(peek(sign))) at_ += sign, digits(), whole = false;
    std::string value(source_.substr(begin, at_ - begin));
    std::erase(value, '_');
    tokens_.push_back({whole ? Token::integer : Token::number, std::move(value), begin});
  }

  void read_string(char quote) {
    const size_t begin = at_++;
    std::string value;
    while (peek() != quote) {
      if (at_ >= stop_) refuse(source_, begin, "a closing quote", "the end of the template");
      if (peek() == '\\')
        read_escape(value);
      else
        value += source_[at_++];
    }
    ++at_;
    tokens_.push_back({Token::string, std::move(value), begin});
  }

  // As in Python; an unknown one stays as it is.
  void read_escape(std::string& value) {
    const char c = peek(1);
    constexpr std::string_view kNames = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t i = kNames.find(c); i != kNames.npos && c != '\0') {
      value += kValues[i];
      at_ += 2;
      return;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      value += source_[at_++];
      return;
    }
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char d = peek(2 + i);
      const size_t digit = std::string_view("0123456789abcdef").find(static_cast<char>(d | 0x20));
      if (digit > 15 || d == '\0') refuse(source_, at_, fmt::format("{} hexadecimal digits", digits), "others");
      code = code << 4 | static_cast<uint32_t>(digit);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      refuse(source_, at_, "a character's code", "another number");
    append_utf8(value, code);
    at_ += 2 + digits;
  }

  std::string_view source_;
  size_t stop_, at_ = 0;
  bool trim_left_ = false;
  std::vector<Token> tokens_;
};

}  // namespace

void refuse(std::string_view source, size_t at, const std::string& expected, const std::string& found) {
  const std::string_view before = source.substr(0, at);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::string_view last = before.substr(before.rfind('\n') + 1);
  const auto column = 1 + std::count_if(last.begin(), last.end(), [](char c) { return (c & 0xc0) != 0x80; });
  fail({"chat template", expected, found, fmt::format("line {}, column {}", line, column)});
}

std::vector<Token> tokens_of(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace sennit::tokenizers::jinja
