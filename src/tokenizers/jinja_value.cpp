#include "tokenizers/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/utf8.h"

namespace sennit::tokenizers::jinja {
namespace {

thread_local int64_t visits = 0;

// The shortest digits that give the same double, with a point, as Python writes them.
std::string float_text(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  const std::string text = fmt::format("{}", d);
  return text.find_first_of(".e") == text.npos ? text + ".0" : text;
}

std::string quoted(const std::string& s) {
  const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : s) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else if (c == '\\' || c == quote)
      out += '\\', out += c;
    else
      out += c;
  }
  return out + quote;
}

}  // namespace

void reset_visits() {
  visits = 0;
}

void count_visit(int depth) {
  constexpr int kDeepestValue = 64;
  constexpr int64_t kMost = 16'000'000;
  if (depth > kDeepestValue) fail({"chat template", fmt::format("values of at most {} levels", kDeepestValue), "deeper ones"});
  if (++visits > kMost) fail({"chat template", fmt::format("values that are looked at {} times", kMost), "more"});
}

Value Value::of_json(const Json& json) {
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) return Data(json.get<double>());
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return Data(json.get<double>());
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& j : json) items.push_back(of_json(j));
    return list(std::move(items));
  }
  if (!json.is_object()) return Data(None{});
  const Value d = dict();
  for (const auto& [key, value] : json.items()) d.as<Dict>()->members.emplace_back(key, of_json(value));
  return d;
}

double Value::number() const {
  if (is<int64_t>()) return static_cast<double>(as<int64_t>());
  return is<bool>() ? as<bool>() : as<double>();
}

bool Value::truthy() const {
  if (is<Undefined>() || is<None>()) return false;
  if (is_number()) return number() != 0;
  if (is<std::string>()) return !as<std::string>().empty();
  if (is<List>()) return !as<List>()->empty();
  return !is<Dict>() || as<Dict>()->is_namespace || !as<Dict>()->members.empty();
}

const char* Value::type() const {
  constexpr const char* kNames[] = {
      "something undefined", "none",      "a boolean", "an integer", "a number", "a text", "a list",
      "a dictionary",        "a function"};
  return kNames[data_.index()];
}

const Value* Value::find(const std::string& key) const {
  if (!is<Dict>()) return nullptr;
  for (const auto& [name, value] : as<Dict>()->members)
    if (name == key) return &value;
  return nullptr;
}

void Value::set(const std::string& key, Value value) const {
  for (auto& [name, old] : as<Dict>()->members)
    if (name == key) {
      old = std::move(value);
      return;
    }
  as<Dict>()->members.emplace_back(key, std::move(value));
}

bool equal(const Value& a, const Value& b, int depth) {
  count_visit(depth);
  if (a.is_number() && b.is_number()) {
    if (a.is<int64_t>() && b.is<int64_t>()) return a.as<int64_t>() == b.as<int64_t>();
    return a.number() == b.number();
  }
  if (a.is<std::string>() && b.is<std::string>()) return a.as<std::string>() == b.as<std::string>();
  if (a.is<List>() && b.is<List>())
    return std::equal(a.as<List>()->begin(), a.as<List>()->end(), b.as<List>()->begin(), b.as<List>()->end(),
                      [depth](const Value& x, const Value& y) { return equal(x, y, depth + 1); });
  if (a.is<Dict>() && b.is<Dict>()) {
    const auto& members = a.as<Dict>()->members;
    return members.size() == b.as<Dict>()->members.size() &&
           std::all_of(members.begin(), members.end(), [&](const auto& m) {
             const Value* other = b.find(m.first);
             return other != nullptr && equal(m.second, *other, depth + 1);
           });
  }
  return (a.is<None>() && b.is<None>()) || (a.is<Undefined>() && b.is<Undefined>());
}

std::string to_text(const Value& v) {
  return v.is<std::string>() ? v.as<std::string>() : to_repr(v);
}

std::string to_repr(const Value& v, int depth) {
  count_visit(depth);
  if (v.is<Undefined>()) return "";
  if (v.is<None>()) return "None";
  if (v.is<bool>()) return v.as<bool>() ? "True" : "False";
  if (v.is<int64_t>()) return fmt::format("{}", v.as<int64_t>());
  if (v.is<double>()) return float_text(v.as<double>());
  if (v.is<std::string>()) return quoted(v.as<std::string>());
  std::string out;
  if (v.is<List>()) {
    for (const Value& item : *v.as<List>()) out.append(out.empty() ? "" : ", ").append(to_repr(item, depth + 1));
    return "[" + out + "]";
  }
  if (!v.is<Dict>()) return "<function>";
  for (const auto& [key, value] : v.as<Dict>()->members)
    out.append(out.empty() ? "" : ", ").append(quoted(key)).append(": ").append(to_repr(value, depth + 1));
  return "{" + out + "}";
}

std::string to_json(const Value& v, int64_t indent, int depth) {
  count_visit(depth);
  if (v.is<None>()) return "null";
  if (v.is<bool>()) return v.as<bool>() ? "true" : "false";
  if (v.is<std::string>()) return json_text(Json(v.as<std::string>()));
  if (v.is_number()) return to_repr(v);
  if (!v.is<List>() && !v.is<Dict>()) fail({"chat template", "a value that JSON has", v.type()});
  const auto line = [indent](int level) {
    return indent < 0 ? std::string() : std::string(1, '\n').append(static_cast<size_t>(indent * level), ' ');
  };
  const std::string between = (indent < 0 ? ", " : ",") + line(depth + 1);
  std::string out;
  if (v.is<List>())
    for (const Value& item : *v.as<List>())
      out.append(out.empty() ? line(depth + 1) : between).append(to_json(item, indent, depth + 1));
  else
    for (const auto& [key, value] : v.as<Dict>()->members)
      out.append(out.empty() ? line(depth + 1) : between)
          .append(to_json(Value(key)))
          .append(": ")
          .append(to_json(value, indent, depth + 1));
  if (!out.empty()) out += line(depth);
  return v.is<List>() ? "[" + out + "]" : "{" + out + "}";
}

}  // namespace sennit::tokenizers::jinja
