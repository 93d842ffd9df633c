#include "tokenizers/json_part.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sennit::tokenizers {

JsonPart::JsonPart(const Json& value, std::string where) : value_(value), where_(std::move(where)) {
  if (!value.is_object()) fail({"tokenizer", "an object", value.type_name(), where_});
}

bool JsonPart::has(const char* key) const {
  const auto it = value_.find(key);
  return it != value_.end() && !it->is_null();
}

const Json& JsonPart::member(const char* key) const {
  if (!has(key)) fail({"tokenizer", fmt::format("a member \"{}\"", key), "none", where_});
  return *value_.find(key);
}

std::string JsonPart::text(const char* key) const {
  const Json& v = member(key);
  if (!v.is_string()) refuse(key, "a text", v.type_name());
  return v.get<std::string>();
}

std::string JsonPart::text(const char* key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}

bool JsonPart::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const Json& v = member(key);
  if (!v.is_boolean()) refuse(key, "true or false", v.type_name());
  return v.get<bool>();
}

int64_t JsonPart::integer(const char* key, int64_t otherwise, int64_t min, int64_t max) const {
  if (!has(key)) return otherwise;
  const Json& v = member(key);
  const bool fits = v.is_number_unsigned() ? v.get<uint64_t>() <= INT64_MAX : v.is_number_integer();
  if (!fits || v.get<int64_t>() < min || v.get<int64_t>() > max)
    refuse(key, fmt::format("a whole number from {} to {}", min, max), json_text(v).substr(0, 40));
  return v.get<int64_t>();
}

JsonPart JsonPart::part(const char* key) const {
  return {member(key), where(key)};
}

std::vector<JsonPart> JsonPart::list(const char* key) const {
  const Json& v = member(key);
  if (!v.is_array()) refuse(key, "a list", v.type_name());
  std::vector<JsonPart> parts;
  for (size_t i = 0; i < v.size(); ++i) parts.emplace_back(v[i], fmt::format("{}.{}[{}]", where_, key, i));
  return parts;
}

void JsonPart::refuse(const char* key, const std::string& expected, const std::string& found) const {
  fail({"tokenizer", expected, found, where(key)});
}

void JsonPart::refuse_type(const std::vector<std::string>& known) const {
  refuse("type", fmt::format("one of {}", fmt::join(known, ", ")),
         has("type") ? json_text(member("type")).substr(0, 80) : "none");
}

}  // namespace sennit::tokenizers
