#include "io/json_file.h"

#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"

namespace sennit::io {
namespace {

class Parser {
 public:
  Parser(std::string_view text, const std::string& where, const JsonLimits& limits)
      : text_(text), where_(where), limits_(limits) {}

  Json document() {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
    Json value = read_value(0);
    skip_space();
    if (at_ != text_.size()) refuse("nothing after the value", shown());
    return value;
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& found) { refuse_at(at_, expected, found); }

  [[noreturn]] void refuse_at(size_t at, const std::string& expected, const std::string& found) {
    const std::string_view before = text_.substr(0, at);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::string_view last = before.substr(before.rfind('\n') + 1);
    const auto column = 1 + std::count_if(last.begin(), last.end(), [](char c) { return (c & 0xc0) != 0x80; });
    fail({"JSON", expected, found, fmt::format("{}:{}:{}", where_, line, column)});
  }

  std::string shown() const {
    if (at_ >= text_.size()) return "the end of the text";
    const unsigned char c = static_cast<unsigned char>(text_[at_]);
    return c >= 0x20 && c < 0x7f ? fmt::format("`{}`", text_[at_]) : fmt::format("byte 0x{:02x}", c);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }

  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }

  Json read_value(int depth) {
    skip_space();
    if (depth > limits_.max_depth) refuse(fmt::format("at most {} levels of nesting", limits_.max_depth), "more");
    if (++values_ > limits_.max_values) refuse(fmt::format("at most {} values", limits_.max_values), "more");
    switch (peek()) {
      case '{':
        return read_object(depth);
      case '[':
        return read_list(depth);
      case '"':
        return read_text();
      default:
        break;
    }
    if (take("true")) return true;
    if (take("false")) return false;
    if (take("null")) return nullptr;
    return read_number();
  }

  Json read_object(int depth) {
    struct Member {
      std::string key;
      Json value;
      size_t at;
    };
    std::vector<Member> members;
    ++at_;
    skip_space();
    if (!take('}')) do {
        skip_space();
        const size_t at = at_;
        if (peek() != '"') refuse("a key in double quotes", shown());
        std::string key = read_text();
        skip_space();
        if (!take(':')) refuse("`:` after a key", shown());
        members.push_back({std::move(key), read_value(depth + 1), at});
        skip_space();
      } while (next_or('}', "`,` or `}` after a member"));
    std::vector<const Member*> sorted;
    for (const Member& m : members) sorted.push_back(&m);
    std::stable_sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->key < b->key; });
    const auto twin =
        std::adjacent_find(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->key == b->key; });
    if (twin != sorted.end()) refuse_at(twin[1]->at, "each key once", fmt::format("`{}` again", twin[1]->key));
    Json object = Json::object();
    object.get_ref<Json::object_t&>().reserve(members.size());
    for (Member& m : members) append_member(object, std::move(m.key), std::move(m.value));
    return object;
  }

  Json read_list(int depth) {
    Json list = Json::array();
    auto& items = list.get_ref<Json::array_t&>();
    ++at_;
    skip_space();
    if (take(']')) return list;
    do items.push_back(read_value(depth + 1));
    while ((skip_space(), next_or(']', "`,` or `]` after an item")));
    return list;
  }

  // True when a comma asks for another element, false at the closing bracket.
  bool next_or(char close, const char* expected) {
    if (take(',')) return true;
    if (!take(close)) refuse(expected, shown());
    return false;
  }

  std::string read_text() {
    const size_t opening = at_++;
    std::string out;
    while (true) {
      if (at_ >= text_.size()) refuse_at(opening, "a closing quote", "the end of the text");
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') break;
      if (c < 0x20) refuse("control characters to be escaped", shown());
      if (c == '\\') {
        read_escape(out);
        continue;
      }
      const Utf8Start start = utf8_start(text_.substr(at_));
      if (start.kind != Utf8Start::whole) refuse("UTF-8", shown());
      out.append(text_, at_, start.length);
      at_ += start.length;
    }
    ++at_;
    return out;
  }

  void read_escape(std::string& out) {
    ++at_;
    if (take('u')) return append_utf8(out, read_code_point());
    static constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const size_t i = at_ < text_.size() ? kNames.find(text_[at_]) : kNames.npos;
    if (i == kNames.npos) refuse("one of \" \\ / b f n r t u after a backslash", shown());
    out += kValues[i];
    ++at_;
  }

  char32_t read_code_point() {
    const size_t at = at_;
    const uint32_t first = read_hex();
    if (first < 0xd800 || first > 0xdfff) return first;
    if (first > 0xdbff || !take("\\u")) refuse_at(at, "a pair of surrogates", "half of one");
    const uint32_t second = read_hex();
    if (second < 0xdc00 || second > 0xdfff) refuse_at(at, "a pair of surrogates", "half of one");
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
  }

  uint32_t read_hex() {
    const std::string_view digits = text_.substr(at_, 4);
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || end != digits.data() + 4) refuse("four hexadecimal digits", shown());
    at_ += 4;
    return value;
  }

  bool digits() {
    const size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > begin;
  }

  Json read_number() {
    const size_t begin = at_;
    const bool negative = take('-');
    if (limits_.non_finite && take("Infinity")) return negative ? -INFINITY : INFINITY;
    if (limits_.non_finite && !negative && take("NaN")) return std::numeric_limits<double>::quiet_NaN();
    if (!take('0') && !digits()) refuse("a value", shown());
    bool whole = true;
    if (take('.')) {
      if (!digits()) refuse("a digit after the point", shown());
      whole = false;
    }
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!digits()) refuse("a digit in the exponent", shown());
      whole = false;
    }
    return number(text_.substr(begin, at_ - begin), begin, whole);
  }

  Json number(std::string_view text, size_t at, bool whole) {
    const auto in = [&](auto& value) {
      return std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc();
    };
    int64_t i;
    uint64_t u;
    double d;
    if (whole && in(i)) return text[0] == '-' ? Json(i) : Json(static_cast<uint64_t>(i));
    if (whole && in(u)) return u;
    if (in(d)) return d;
    // from_chars tells too small from too large by neither value nor code.
    static const locale_t c_locale = ::newlocale(LC_ALL_MASK, "C", nullptr);
    d = ::strtod_l(std::string(text).c_str(), nullptr, c_locale);
    if (!std::isfinite(d)) refuse_at(at, "a number within the range of double", std::string(text.substr(0, 40)));
    return d;
  }

  std::string_view text_;
  const std::string& where_;
  JsonLimits limits_;
  size_t at_ = 0;
  int64_t values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes)
    fail({"JSON", fmt::format("at most {} bytes", limits.max_bytes), fmt::format("{}", text.size()), where});
  return Parser(text, where, limits).document();
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  return parse_json(MappedFile::open(path)->text(), path, limits);
}

void append_member(Json& object, std::string key, Json value) {
  std::vector<Json::object_t::value_type>& pairs = object.get_ref<Json::object_t&>();
  pairs.emplace_back(std::move(key), std::move(value));
}

void write_json_file(const std::string& path, const Json& value) {
  write_file(path, json_text(value, 2) + "\n");
}

}  // namespace sennit::io
