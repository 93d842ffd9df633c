#include "tokenizers/jinja_functions.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <unordered_map>

#include "base/error.h"
#include "tokenizers/unicode.h"

namespace sennit::tokenizers::jinja {
namespace {

const std::string& text_of(const Value& v, const std::string& who) {
  if (!v.is<std::string>()) throw Complaint{"a text for " + who, v.type()};
  return v.as<std::string>();
}

Value attribute_path(const Value& v, const std::string& path) {
  Value at = v;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('.', begin), path.size());
    at = item_of(at, Value(path.substr(begin, end - begin)));
    begin = end + 1;
  }
  return at;
}

Value default_of(const Value& v, const Arguments& a) {
  const Value* other = a.get(0, "default_value");
  const Value* falsy = a.get(1, "boolean");
  const bool missing = v.is<Undefined>() || (falsy != nullptr && falsy->truthy() && !v.truthy());
  return !missing ? v : other != nullptr ? *other : Value("");
}

Value to_integer(const Value& v, const Arguments& a) {
  if (v.is<bool>() || v.is<int64_t>()) return static_cast<int64_t>(v.number());
  double d = std::nan("");
  if (v.is<double>()) d = v.as<double>();
  if (v.is<std::string>())
    std::from_chars(v.as<std::string>().data(), v.as<std::string>().data() + v.as<std::string>().size(), d);
  return std::abs(d) < 9e18 ? Value(static_cast<int64_t>(d)) : Value(a.integer(0, "default", 0));
}

Value to_float(const Value& v) {
  if (v.is_number()) return Value::Data(v.number());
  double d = 0;
  if (v.is<std::string>())
    std::from_chars(v.as<std::string>().data(), v.as<std::string>().data() + v.as<std::string>().size(), d);
  return Value::Data(d);
}

Value joined(const Value& v, const Arguments& a, Budget& budget) {
  const std::string between = a.text(0, "d", "");
  const std::string attribute = a.text(1, "attribute", "");
  std::string out;
  bool first = true;
  for (const Value& item : items_of(v, budget)) {
    const std::string text = to_text(attribute.empty() ? item : attribute_path(item, attribute));
    budget.spend(between.size() + text.size());
    out.append(first ? "" : between).append(text);
    first = false;
  }
  return out;
}

Value sorted(const Value& v, const Arguments& a, Budget& budget) {
  std::vector<Value> items = items_of(v, budget);
  const std::string attribute = a.text(2, "attribute", "");
  const Value* reverse = a.get(0, "reverse");
  const Value* exact = a.get(1, "case_sensitive");
  const auto key = [&](const Value& item) {
    const Value k = attribute.empty() ? item : attribute_path(item, attribute);
    return k.is<std::string>() && (exact == nullptr || !exact->truthy()) ? Value(unicode::lower(k.as<std::string>()))
                                                                         : k;
  };
  std::vector<std::pair<Value, size_t>> keys;
  for (size_t i = 0; i < items.size(); ++i) keys.emplace_back(key(items[i]), i);
  const bool down = reverse != nullptr && reverse->truthy();
  std::stable_sort(keys.begin(), keys.end(), [&](const auto& x, const auto& y) {
    return down ? less(y.first, x.first) : less(x.first, y.first);
  });
  std::vector<Value> out;
  for (const auto& k : keys) out.push_back(items[k.second]);
  return Value::list(std::move(out));
}

Value mapped(const Value& v, const Arguments& a, Budget& budget) {
  std::vector<Value> out;
  const std::string attribute = a.text(9, "attribute", "");
  const Value* otherwise = a.get(9, "default");
  const std::string filter = attribute.empty() ? a.text(0, "", "") : "";
  if (attribute.empty() && filter.empty()) throw Complaint{"a filter or an attribute for map", "neither"};
  Arguments rest = a;
  if (!filter.empty()) rest.positional.erase(rest.positional.begin());
  for (const Value& item : items_of(v, budget)) {
    budget.spend(1);
    Value one = filter.empty() ? attribute_path(item, attribute) : apply_filter(filter, item, rest, budget);
    out.push_back(one.is<Undefined>() && otherwise != nullptr ? *otherwise : std::move(one));
  }
  return Value::list(std::move(out));
}

// select and reject, and with `attribute` selectattr and rejectattr.
Value selected(const Value& v, const Arguments& a, bool attribute, bool wanted, Budget& budget) {
  const size_t place = attribute ? 1 : 0;
  const std::string path = attribute ? a.text(0, "", "") : "";
  const std::string test = a.text(place, "", "");
  Arguments rest;
  if (a.positional.size() > place + 1)
    rest.positional.assign(a.positional.begin() + static_cast<int64_t>(place) + 1, a.positional.end());
  std::vector<Value> out;
  for (const Value& item : items_of(v, budget)) {
    budget.spend(1);
    const Value looked = attribute ? attribute_path(item, path) : item;
    if ((test.empty() ? looked.truthy() : apply_test(test, looked, rest)) == wanted) out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value indented(const std::string& text, const Arguments& a, Budget& budget) {
  const Value* first = a.get(1, "first");
  const Value* blank = a.get(2, "blank");
  const int64_t width = a.integer(0, "width", 4);
  if (width < 0 || width > 1000) throw Complaint{"a width from 0 to 1000 for indent", fmt::format("{}", width)};
  const std::string margin(static_cast<size_t>(width), ' ');
  std::string out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const bool indent =
        begin == 0 ? first != nullptr && first->truthy() : end > begin || (blank != nullptr && blank->truthy());
    budget.spend(indent ? margin.size() + 1 : 1);
    out.append(begin == 0 ? "" : "\n").append(indent ? margin : "").append(text, begin, end - begin);
    begin = end + 1;
  }
  return out;
}

Value unique(const Value& v, Budget& budget) {
  std::vector<Value> out;
  for (const Value& item : items_of(v, budget)) {
    budget.spend(out.size());
    if (std::none_of(out.begin(), out.end(), [&](const Value& o) { return equal(o, item); })) out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value summed(const Value& v, Budget& budget) {
  double sum = 0;
  bool whole = true;
  for (const Value& item : items_of(v, budget)) {
    if (!item.is_number()) throw Complaint{"numbers for sum", item.type()};
    sum += item.number(), whole &= !item.is<double>();
  }
  return whole && std::abs(sum) < 9e15 ? Value(static_cast<int64_t>(sum)) : Value(Value::Data(sum));
}

Value rounded(const Value& v, const Arguments& a) {
  if (!v.is_number()) throw Complaint{"a number for round", v.type()};
  const double scale =
      std::pow(10.0, static_cast<double>(std::clamp<int64_t>(a.integer(0, "precision", 0), -300, 300)));
  return Value::Data(std::nearbyint(v.number() * scale) / scale);
}

Value absolute(const Value& v) {
  if (!v.is_number()) throw Complaint{"a number for abs", v.type()};
  if (v.is<double>()) return Value::Data(std::abs(v.as<double>()));
  const auto i = static_cast<int64_t>(v.number());
  return i < 0 ? Value(static_cast<int64_t>(0 - static_cast<uint64_t>(i))) : Value(i);
}

Value members_of(const Value& v, const std::string& who) {
  if (!v.is<Dict>()) throw Complaint{"a dictionary for " + who, v.type()};
  std::vector<Value> out;
  for (const auto& [key, value] : v.as<Dict>()->members) out.push_back(Value::list({Value(key), value}));
  return Value::list(std::move(out));
}

Value extreme(const Value& v, bool largest, Budget& budget) {
  const std::vector<Value> items = items_of(v, budget);
  if (items.empty()) return {};
  const auto it =
      largest ? std::max_element(items.begin(), items.end(), less) : std::min_element(items.begin(), items.end(), less);
  return *it;
}

}  // namespace

void Budget::spend(size_t cost) {
  left_ -= static_cast<int64_t>(std::min<size_t>(cost, kMost)) + 1;
  if (left_ < 0) throw Complaint{"a template that makes less than 64 MiB in as many steps", "one that goes on"};
}

const Value* Arguments::get(size_t place, const std::string& name) const {
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return place < positional.size() ? &positional[place] : nullptr;
}

std::string Arguments::text(size_t place, const std::string& name, const std::string& otherwise) const {
  const Value* v = get(place, name);
  if (v == nullptr || v->is<None>()) return otherwise;
  return text_of(*v, name.empty() ? "an argument" : "the argument " + name);
}

int64_t Arguments::integer(size_t place, const std::string& name, int64_t otherwise) const {
  const Value* v = get(place, name);
  if (v == nullptr || v->is<None>()) return otherwise;
  if (!v->is<int64_t>()) throw Complaint{"an integer for the argument " + name, v->type()};
  return v->as<int64_t>();
}

Value apply_filter(const std::string& name, const Value& v, const Arguments& a, Budget& budget) {
  using Filter = std::function<Value(const Value&, const Arguments&, Budget&)>;
  static const auto method = [](const char* of_text) {
    return [of_text](const Value& x, const Arguments& y, Budget& b) {
      return call_method(Value(to_text(x)), of_text, y, b);
    };
  };
  static const std::unordered_map<std::string, Filter> known = {
      {"trim", method("strip")},
      {"upper", method("upper")},
      {"lower", method("lower")},
      {"title", method("title")},
      {"capitalize", method("capitalize")},
      {"replace", method("replace")},
      {"length", [](auto& x, auto&, auto&) { return Value(length_of(x)); }},
      {"count", [](auto& x, auto&, auto&) { return Value(length_of(x)); }},
      {"string", [](auto& x, auto&, auto&) { return Value(to_text(x)); }},
      {"safe", [](auto& x, auto&, auto&) { return x; }},
      {"default", [](auto& x, auto& y, auto&) { return default_of(x, y); }},
      {"d", [](auto& x, auto& y, auto&) { return default_of(x, y); }},
      {"int", [](auto& x, auto& y, auto&) { return to_integer(x, y); }},
      {"float", [](auto& x, auto&, auto&) { return to_float(x); }},
      {"abs", [](auto& x, auto&, auto&) { return absolute(x); }},
      {"round", [](auto& x, auto& y, auto&) { return rounded(x, y); }},
      {"list", [](auto& x, auto&, auto& b) { return Value::list(items_of(x, b)); }},
      {"items",
       [](auto& x, auto&, auto&) { return x.template is<Undefined>() ? Value::list() : members_of(x, "items"); }},
      {"dictsort", [](auto& x, auto&, auto& b) { return sorted(members_of(x, "dictsort"), {}, b); }},
      {"first", [](auto& x, auto&, auto& b) { return item_of(Value::list(items_of(x, b)), Value(int64_t{0})); }},
      {"last", [](auto& x, auto&, auto& b) { return item_of(Value::list(items_of(x, b)), Value(int64_t{-1})); }},
      {"join", [](auto& x, auto& y, auto& b) { return joined(x, y, b); }},
      {"sort", [](auto& x, auto& y, auto& b) { return sorted(x, y, b); }},
      {"unique", [](auto& x, auto&, auto& b) { return unique(x, b); }},
      {"sum", [](auto& x, auto&, auto& b) { return summed(x, b); }},
      {"min", [](auto& x, auto&, auto& b) { return extreme(x, false, b); }},
      {"max", [](auto& x, auto&, auto& b) { return extreme(x, true, b); }},
      {"map", [](auto& x, auto& y, auto& b) { return mapped(x, y, b); }},
      {"select", [](auto& x, auto& y, auto& b) { return selected(x, y, false, true, b); }},
      {"reject", [](auto& x, auto& y, auto& b) { return selected(x, y, false, false, b); }},
      {"selectattr", [](auto& x, auto& y, auto& b) { return selected(x, y, true, true, b); }},
      {"rejectattr", [](auto& x, auto& y, auto& b) { return selected(x, y, true, false, b); }},
      {"indent", [](auto& x, auto& y, auto& b) { return indented(to_text(x), y, b); }},
      {"reverse",
       [](auto& x, auto&, auto& b) {
         const Value back(int64_t{-1});
         return slice_of(x, nullptr, nullptr, &back, b);
       }},
      {"tojson",
       [](auto& x, auto& y, auto&) {
         const int64_t indent = y.integer(0, "indent", -1);
         if (indent > 16) throw Complaint{"an indent of at most 16", "more"};
         return Value(to_json(x, std::max<int64_t>(indent, -1)));
       }},
  };
  const auto filter = known.find(name);
  if (filter == known.end()) throw Complaint{"a filter that is known", fmt::format("`{}`", name)};
  return filter->second(v, a, budget);
}

bool apply_test(const std::string& name, const Value& v, const Arguments& a) {
  const auto other = [&]() -> const Value& {
    if (a.positional.empty()) throw Complaint{"an argument for the test " + name, "none"};
    return a.positional[0];
  };
  const auto whole = [&](int64_t by) {
    if (!v.is<int64_t>()) throw Complaint{"an integer for the test " + name, v.type()};
    if (by == 0) throw Complaint{"a divisor", "0"};
    return by != -1 && v.as<int64_t>() % by != 0;
  };
  using Test = std::function<bool()>;
  const std::unordered_map<std::string_view, Test> known = {
      {"defined", [&] { return !v.is<Undefined>(); }},
      {"undefined", [&] { return v.is<Undefined>(); }},
      {"none", [&] { return v.is<None>(); }},
      {"string", [&] { return v.is<std::string>(); }},
      {"number", [&] { return v.is_number(); }},
      {"integer", [&] { return v.is<int64_t>(); }},
      {"float", [&] { return v.is<double>(); }},
      {"boolean", [&] { return v.is<bool>(); }},
      {"true", [&] { return v.is<bool>() && v.as<bool>(); }},
      {"false", [&] { return v.is<bool>() && !v.as<bool>(); }},
      {"mapping", [&] { return v.is<Dict>(); }},
      {"iterable", [&] { return v.is<List>() || v.is<Dict>() || v.is<std::string>() || v.is<Undefined>(); }},
      {"sequence", [&] { return v.is<List>() || v.is<Dict>() || v.is<std::string>() || v.is<Undefined>(); }},
      {"callable", [&] { return v.is<Callable>(); }},
      {"even", [&] { return !whole(2); }},
      {"odd", [&] { return whole(2); }},
      {"divisibleby", [&] { return !whole(other().is<int64_t>() ? other().as<int64_t>() : 0); }},
      {"eq", [&] { return equal(v, other()); }},
      {"ne", [&] { return !equal(v, other()); }},
      {"lt", [&] { return less(v, other()); }},
      {"gt", [&] { return less(other(), v); }},
      {"le", [&] { return !less(other(), v); }},
      {"ge", [&] { return !less(v, other()); }},
      {"in", [&] { return contains(other(), v); }},
  };
  constexpr std::string_view kOther[][2] = {{"equalto", "eq"},     {"==", "eq"},    {"!=", "ne"}, {"lessthan", "lt"},
                                            {"greaterthan", "gt"}, {"<", "lt"},     {">", "gt"},  {"<=", "le"},
                                            {">=", "ge"},          {"sameas", "eq"}};
  const auto alias = std::find_if(std::begin(kOther), std::end(kOther), [&](const auto& o) { return o[0] == name; });
  const auto test = known.find(alias == std::end(kOther) ? std::string_view(name) : (*alias)[1]);
  if (test == known.end()) throw Complaint{"a test that is known", fmt::format("`{}`", name)};
  return test->second();
}

std::vector<Value> items_of(const Value& v, Budget& budget) {
  std::vector<Value> out;
  if (v.is<List>()) {
    out = *v.as<List>();
  } else if (v.is<Dict>()) {
    for (const auto& member : v.as<Dict>()->members) out.emplace_back(member.first);
  } else if (v.is<std::string>()) {
    budget.spend(v.as<std::string>().size() * sizeof(Value));
    unicode::for_each_char(v.as<std::string>(),
                           [&](char32_t, std::string_view c) { out.emplace_back(std::string(c)); });
  } else if (!v.is<Undefined>()) {
    throw Complaint{"something to walk through", v.type()};
  }
  budget.spend(out.size());
  return out;
}

int64_t length_of(const Value& v) {
  if (v.is<List>()) return static_cast<int64_t>(v.as<List>()->size());
  if (v.is<Dict>()) return static_cast<int64_t>(v.as<Dict>()->members.size());
  if (v.is<Undefined>()) return 0;
  const std::string& text = text_of(v, "length");
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

bool contains(const Value& in, const Value& v) {
  if (in.is<std::string>()) return in.as<std::string>().find(text_of(v, "`in` a text")) != std::string::npos;
  if (in.is<Dict>()) return v.is<std::string>() && in.find(v.as<std::string>()) != nullptr;
  if (in.is<Undefined>()) return false;
  if (!in.is<List>()) throw Complaint{"a text, list or dictionary behind `in`", in.type()};
  return std::any_of(in.as<List>()->begin(), in.as<List>()->end(), [&](const Value& item) { return equal(item, v); });
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is<int64_t>() && b.is<int64_t>()) return a.as<int64_t>() < b.as<int64_t>();
    return a.number() < b.number();
  }
  if (a.is<std::string>() && b.is<std::string>()) return a.as<std::string>() < b.as<std::string>();
  if (a.is<List>() && b.is<List>())
    return std::lexicographical_compare(a.as<List>()->begin(), a.as<List>()->end(), b.as<List>()->begin(),
                                        b.as<List>()->end(), less);
  throw Complaint{"two values that have an order", fmt::format("{} and {}", a.type(), b.type())};
}

}  // namespace sennit::tokenizers::jinja
