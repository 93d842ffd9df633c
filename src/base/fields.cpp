#include "base/fields.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sennit {
namespace {

std::string limits_text(const Field& f) {
  const auto& l = f.limits;
  if (!l.choices.empty()) return fmt::format("one of {}", fmt::join(l.choices, ", "));
  const bool low = std::isfinite(l.min), high = std::isfinite(l.max);
  std::string type = (field_type(f) == "integer" ? "an " : "a ") + field_type(f);
  if (low && high) return fmt::format("{} from {} to {}", type, l.min, l.max);
  if (low) return fmt::format("{} of at least {}", type, l.min);
  if (high) return fmt::format("{} of at most {}", type, l.max);
  return type;
}

std::string shown(const Json& value) {
  std::string s = json_text(value);
  return s.size() > 60 ? fmt::format("{}...", s.substr(0, 57)) : s;
}

}  // namespace

std::string json_text(const Json& value, int indent) { return value.dump(indent, ' ', false, Json::error_handler_t::replace); }

Json json_of(std::string_view text) { return Json::parse(text); }

std::string field_type(const Field& f) {
  static const char* const names[] = {"flag", "integer", "number", "text", "part"};
  return names[f.value.index()];
}

std::string field_default(const Field& f) {
  return std::visit(
      [](auto* p) {
        if constexpr (std::is_same_v<decltype(p), Json*>) return p->is_string() ? p->template get<std::string>() : json_text(*p);
        else return fmt::format("{}", *p);
      },
      f.value);
}

void read_field(const Field& f, const Json& value, const std::string& who, const std::string& where) {
  auto refuse = [&] {
    fail({who, fmt::format("`{}` to be {}", f.name, limits_text(f)), shown(value), where});
  };
  auto within = [&](double x) {
    if (!(x >= f.limits.min && x <= f.limits.max)) refuse();
  };
  if (auto* b = std::get_if<bool*>(&f.value)) {
    if (!value.is_boolean()) refuse();
    **b = value.get<bool>();
  } else if (auto* i = std::get_if<int64_t*>(&f.value)) {
    if (!value.is_number_integer()) refuse();
    if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}) refuse();
    within(value.get<double>());
    **i = value.get<int64_t>();
  } else if (auto* d = std::get_if<double*>(&f.value)) {
    if (!value.is_number()) refuse();
    within(value.get<double>());
    **d = value.get<double>();
  } else if (auto* part = std::get_if<Json*>(&f.value)) {
    if (!value.is_string() && !value.is_object()) refuse();
    **part = value;
  } else {
    if (!value.is_string()) refuse();
    const auto text = value.get<std::string>();
    const auto& choices = f.limits.choices;
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) refuse();
    *std::get<std::string*>(f.value) = text;
  }
}

void unknown_key(const std::string& key, const std::vector<std::string>& known, const std::string& who,
                 const std::string& where) {
  const std::string near = closest(key, known);
  fail({who, near.empty() ? fmt::format("one of the keys {}", fmt::join(known, ", ")) : fmt::format("`{}`?", near),
        fmt::format("unknown key `{}`", key), where});
}

void read_fields(const Fields& fields, const Json& object, const std::string& who, const std::string& where) {
  if (!object.is_object()) fail({who, "an object", shown(object), where});
  for (const auto& [key, value] : object.items()) {
    const auto f = std::find_if(fields.begin(), fields.end(), [&name = key](const Field& x) { return x.name == name; });
    if (f == fields.end()) {
      std::vector<std::string> known;
      for (const Field& x : fields) known.push_back(x.name);
      unknown_key(key, known, who, where);
    }
    read_field(*f, value, who, where);
  }
}

Json write_fields(const Fields& fields) {
  Json object = Json::object();
  for (const Field& f : fields) std::visit([&](auto* p) { object[f.name] = *p; }, f.value);
  return object;
}

}  // namespace sennit
