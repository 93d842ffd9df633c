#include <unicode/uchar.h>

#include <algorithm>
#include <functional>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenizers/jinja_functions.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers::jinja {
namespace {

std::vector<std::string_view> characters(const std::string& text) {
  std::vector<std::string_view> out;
  unicode::for_each_char(text, [&](char32_t, std::string_view c) { out.push_back(c); });
  return out;
}

// Without the characters of `set` at its ends; without white space when there is no set.
std::string stripped(const std::string& text, const Value* set, bool left, bool right) {
  const std::string wanted = set != nullptr && set->is<std::string>() ? set->as<std::string>() : "";
  const bool spaces = set == nullptr || set->is<None>();
  const auto goes = [&](std::string_view c) {
    size_t at = 0;
    return spaces ? unicode::is_space(unicode::next(c, at)) : wanted.find(c) != wanted.npos;
  };
  const std::vector<std::string_view> all = characters(text);
  size_t begin = 0, end = all.size();
  while (left && begin < end && goes(all[begin])) ++begin;
  while (right && end > begin && goes(all[end - 1])) --end;
  if (begin == end) return "";
  const size_t from = all[begin].data() - text.data();
  return text.substr(from, all[end - 1].data() + all[end - 1].size() - text.data() - from);
}

// In upper case where `up(place, begins a word)`, in lower case elsewhere.
template <class F>
std::string cased(const std::string& text, F&& up) {
  std::string out;
  bool in_word = false;
  size_t place = 0;
  unicode::for_each_char(text, [&](char32_t c, std::string_view s) {
    if (up(place++, !in_word))
      append_utf8(out, static_cast<char32_t>(u_toupper(static_cast<UChar32>(c))));
    else
      out += unicode::lower(s);
    in_word = u_isalpha(static_cast<UChar32>(c));
  });
  return out;
}

Value split(const std::string& text, const Arguments& a, Budget& budget) {
  const std::string by = a.text(0, "sep", "");
  int64_t most = a.integer(1, "maxsplit", -1);
  std::vector<Value> out;
  if (a.get(0, "sep") != nullptr && !a.get(0, "sep")->is<None>() && by.empty())
    throw Complaint{"a separator", "an empty one"};
  size_t begin = 0;
  if (!by.empty()) {
    for (size_t at; most != 0 && (at = text.find(by, begin)) != text.npos; begin = at + by.size(), --most) {
      budget.spend(1);
      out.emplace_back(text.substr(begin, at - begin));
    }
    out.emplace_back(text.substr(begin));
    return Value::list(std::move(out));
  }
  constexpr const char* kSpaces = " \t\n\r\f\v";
  while ((begin = text.find_first_not_of(kSpaces, begin)) != text.npos) {
    const size_t end = most == 0 ? text.size() : std::min(text.find_first_of(kSpaces, begin), text.size());
    budget.spend(1);
    out.emplace_back(text.substr(begin, end - begin));
    begin = end, --most;
  }
  return Value::list(std::move(out));
}

Value lines(const std::string& text) {
  std::vector<Value> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    out.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return Value::list(std::move(out));
}

Value replaced(const std::string& text, const Arguments& a, Budget& budget) {
  const std::string from = a.text(0, "old", ""), to = a.text(1, "new", "");
  int64_t most = a.integer(2, "count", -1);
  if (from.empty()) throw Complaint{"a text to replace", "an empty one"};
  std::string out;
  size_t begin = 0;
  for (size_t at; most != 0 && (at = text.find(from, begin)) != text.npos; begin = at + from.size(), --most) {
    budget.spend(to.size() + at - begin);
    out.append(text, begin, at - begin).append(to);
  }
  return out.append(text, begin);
}

// Any of the texts, as startswith and endswith take one or a list.
bool any_of(const Arguments& a, const std::function<bool(const std::string&)>& fits) {
  const Value* v = a.get(0, "");
  if (v != nullptr && v->is<std::string>()) return fits(v->as<std::string>());
  if (v == nullptr || !v->is<List>()) throw Complaint{"a text", v == nullptr ? "nothing" : v->type()};
  return std::any_of(v->as<List>()->begin(), v->as<List>()->end(),
                     [&](const Value& o) { return o.is<std::string>() && fits(o.as<std::string>()); });
}

Value of_text(const std::string& s, const std::string& name, const Arguments& a, Budget& budget) {
  const Value* first = a.get(0, "");
  const auto one = [&] { return a.text(0, "", ""); };
  const std::unordered_map<std::string_view, std::function<Value()>> known = {
      {"strip", [&] { return Value(stripped(s, first, true, true)); }},
      {"lstrip", [&] { return Value(stripped(s, first, true, false)); }},
      {"rstrip", [&] { return Value(stripped(s, first, false, true)); }},
      {"upper", [&] { return Value(cased(s, [](size_t, bool) { return true; })); }},
      {"lower", [&] { return Value(unicode::lower(s)); }},
      {"title", [&] { return Value(cased(s, [](size_t, bool begins) { return begins; })); }},
      {"capitalize", [&] { return Value(cased(s, [](size_t place, bool) { return place == 0; })); }},
      {"split", [&] { return split(s, a, budget); }},
      {"splitlines", [&] { return lines(s); }},
      {"replace", [&] { return replaced(s, a, budget); }},
      {"startswith", [&] { return Value(any_of(a, [&](const std::string& o) { return s.starts_with(o); })); }},
      {"endswith", [&] { return Value(any_of(a, [&](const std::string& o) { return s.ends_with(o); })); }},
      {"removeprefix", [&] { return Value(s.starts_with(one()) ? s.substr(one().size()) : s); }},
      {"removesuffix", [&] { return Value(s.ends_with(one()) ? s.substr(0, s.size() - one().size()) : s); }},
      {"find",
       [&] {
         const size_t at = s.find(one());
         return Value(at == s.npos ? int64_t{-1} : length_of(Value(s.substr(0, at))));
       }},
      {"join",
       [&] {
         Arguments between;
         between.positional = {Value(s)};
         return apply_filter("join", first == nullptr ? Value() : *first, between, budget);
       }},
      {"isdigit",
       [&] {
         return Value(!s.empty() && std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; }));
       }},
      {"isspace", [&] { return Value(!s.empty() && stripped(s, nullptr, true, true).empty()); }},
  };
  const auto method = known.find(name);
  if (method == known.end()) throw Complaint{"a method that texts have", fmt::format("`{}`", name)};
  budget.spend(s.size());
  return method->second();
}

Value of_list(const Value& v, const std::string& name, const Arguments& a, Budget& budget) {
  std::vector<Value>& items = *v.as<List>();
  if (name == "append" && a.positional.size() == 1) {
    check_apart(a.positional[0], &items);
    budget.spend(sizeof(Value));
    items.push_back(a.positional[0]);
    return Value::Data(None{});
  }
  if (name == "pop" && !items.empty()) {
    const int64_t n = static_cast<int64_t>(items.size()), i = a.integer(0, "", n - 1), at = i < 0 ? i + n : i;
    if (at < 0 || at >= n) throw Complaint{"an index in the list", fmt::format("{}", i)};
    Value out = items[at];
    items.erase(items.begin() + at);
    return out;
  }
  if ((name == "index" || name == "count") && a.positional.size() == 1) {
    budget.spend(items.size());
    const auto same = [&](const Value& item) { return equal(item, a.positional[0]); };
    if (name == "count") return Value(static_cast<int64_t>(std::count_if(items.begin(), items.end(), same)));
    const auto it = std::find_if(items.begin(), items.end(), same);
    if (it != items.end()) return Value(static_cast<int64_t>(it - items.begin()));
  }
  throw Complaint{"a method that lists have, with its arguments", fmt::format("`{}`", name)};
}

Value of_dict(const Value& v, const std::string& name, const Arguments& a, Budget& budget) {
  if (name == "items") return apply_filter("items", v, {}, budget);
  if (name == "keys") return Value::list(items_of(v, budget));
  if (name == "values") {
    std::vector<Value> out;
    for (const auto& member : v.as<Dict>()->members) out.push_back(member.second);
    budget.spend(out.size());
    return Value::list(std::move(out));
  }
  if (name == "get" && !a.positional.empty()) {
    const Value* found = a.positional[0].is<std::string>() ? v.find(a.positional[0].as<std::string>()) : nullptr;
    return found != nullptr ? *found : a.positional.size() > 1 ? a.positional[1] : Value(Value::Data(None{}));
  }
  if (name == "update" && a.positional.size() == 1 && a.positional[0].is<Dict>()) {
    const auto members = a.positional[0].as<Dict>()->members;
    for (const auto& [key, value] : members) {
      check_apart(value, v.as<Dict>().get());
      budget.spend(v.as<Dict>()->members.size() + key.size());
      v.set(key, value);
    }
    return Value::Data(None{});
  }
  throw Complaint{"a method that dictionaries have, with its arguments", fmt::format("`{}`", name)};
}

}  // namespace

void check_apart(const Value& v, const void* holder, int depth) {
  count_visit(depth);
  const bool same = (v.is<List>() && v.as<List>().get() == holder) || (v.is<Dict>() && v.as<Dict>().get() == holder);
  if (same) throw Complaint{"lists and dictionaries that do not hold themselves", "one that would"};
  if (v.is<List>())
    for (const Value& item : *v.as<List>()) check_apart(item, holder, depth + 1);
  if (v.is<Dict>())
    for (const auto& member : v.as<Dict>()->members) check_apart(member.second, holder, depth + 1);
}

Value call_method(const Value& of, const std::string& name, const Arguments& a, Budget& budget) {
  if (of.is<std::string>()) return of_text(of.as<std::string>(), name, a, budget);
  if (of.is<List>()) return of_list(of, name, a, budget);
  if (of.is<Dict>()) return of_dict(of, name, a, budget);
  throw Complaint{fmt::format("something with a method `{}`", name), of.type()};
}

Value item_of(const Value& of, const Value& key) {
  if (of.is<Undefined>())
    throw Complaint{"something that is defined", fmt::format("`{}`, which is not", of.as<Undefined>().name)};
  const std::string name = key.is<std::string>() ? key.as<std::string>() : to_repr(key);
  if (of.is<Dict>()) {
    const Value* found = key.is<std::string>() ? of.find(name) : nullptr;
    return found != nullptr ? *found : Value(Value::Data(Undefined{name}));
  }
  if ((of.is<List>() || of.is<std::string>()) && key.is<int64_t>()) {
    const int64_t n = length_of(of), i = key.as<int64_t>() < 0 ? key.as<int64_t>() + n : key.as<int64_t>();
    if (i < 0 || i >= n) return Value::Data(Undefined{name});
    return of.is<List>() ? (*of.as<List>())[i] : Value(std::string(characters(of.as<std::string>())[i]));
  }
  return Value::Data(Undefined{name});
}

Value slice_of(const Value& of, const Value* from, const Value* to, const Value* step, Budget& budget) {
  if (!of.is<List>() && !of.is<std::string>()) throw Complaint{"a text or list to cut", of.type()};
  const std::vector<Value> items = items_of(of, budget);
  const auto n = static_cast<int64_t>(items.size());
  const auto bound = [](const Value* v, int64_t otherwise) {
    if (v == nullptr || v->is<None>()) return otherwise;
    if (!v->is<int64_t>()) throw Complaint{"an integer as a bound", v->type()};
    return v->as<int64_t>();
  };
  const int64_t by = std::clamp<int64_t>(bound(step, 1), -n - 1, n + 1);
  if (by == 0) throw Complaint{"a step other than 0", "0"};
  const auto place = [&](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? std::max(i, -n - 1) + n : i, by > 0 ? 0 : -1, by > 0 ? n : n - 1);
  };
  const bool has_from = from != nullptr && !from->is<None>(), has_to = to != nullptr && !to->is<None>();
  const int64_t begin = has_from ? place(bound(from, 0)) : by > 0 ? 0 : n - 1;
  const int64_t end = has_to ? place(bound(to, 0)) : by > 0 ? n : -1;
  std::vector<Value> out;
  for (int64_t i = begin; by > 0 ? i < end : i > end; i += by) out.push_back(items[i]);
  if (of.is<List>()) return Value::list(std::move(out));
  std::string text;
  for (const Value& c : out) text += c.as<std::string>();
  return text;
}

}  // namespace sennit::tokenizers::jinja
