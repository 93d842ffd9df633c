#include <algorithm>

#include "base/error.h"
#include "io/gguf.h"

namespace sennit::io {

const char* to_string(GgufType type) {
  static constexpr const char* kNames[] = {"u8",   "i8",   "u16",  "i16", "u32", "i32", "f32",
                                           "bool", "text", "list", "u64", "i64", "f64"};
  return kNames[static_cast<int>(type)];
}

size_t GgufValue::size() const {
  return std::visit([](const auto& v) { return v.size(); }, items);
}

void GgufMetadata::set(std::string key, GgufValue value) {
  const auto [it, fresh] = index_.emplace(key, entries_.size());
  if (fresh)
    entries_.emplace_back(std::move(key), std::move(value));
  else
    entries_[it->second].second = std::move(value);
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const GgufValue& GgufMetadata::get(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v) fail({"GGUF", fmt::format("a key `{}`", key), "none", where_});
  return *v;
}

template <class T>
const std::vector<T>& GgufMetadata::items(std::string_view key, const char* expected) const {
  const GgufValue& v = get(key);
  const auto* items = std::get_if<std::vector<T>>(&v.items);
  if (!items) fail({"GGUF", fmt::format("`{}` to be {}", key, expected), to_string(v.type), where_});
  return *items;
}

std::string GgufMetadata::text(std::string_view key) const {
  const auto& all = items<std::string>(key, "text");
  if (all.size() != 1)
    fail({"GGUF", fmt::format("`{}` to be one text", key), fmt::format("{} of them", all.size()), where_});
  return all[0];
}

int64_t GgufMetadata::integer(std::string_view key) const {
  const auto& all = items<int64_t>(key, "a whole number");
  if (all.empty() || std::any_of(all.begin(), all.end(), [&](int64_t n) { return n != all[0]; }))
    fail({"GGUF", fmt::format("`{}` to be one whole number", key), all.empty() ? "none" : "different ones", where_});
  if (all[0] < 0 && get(key).type == GgufType::u64)
    fail({"GGUF", fmt::format("`{}` below 2^63", key), fmt::format("{}", static_cast<uint64_t>(all[0])), where_});
  return all[0];
}

double GgufMetadata::number(std::string_view key) const {
  if (std::holds_alternative<std::vector<int64_t>>(get(key).items)) return static_cast<double>(integer(key));
  const auto& all = items<double>(key, "a number");
  if (all.size() != 1)
    fail({"GGUF", fmt::format("`{}` to be one number", key), fmt::format("{} of them", all.size()), where_});
  // 1e-5f is meant as 1e-5: the shortest decimal that gives the float.
  return get(key).type == GgufType::f32 ? std::stod(fmt::format("{}", static_cast<float>(all[0]))) : all[0];
}

std::string GgufMetadata::text(std::string_view key, std::string fallback) const {
  return contains(key) ? text(key) : fallback;
}
int64_t GgufMetadata::integer(std::string_view key, int64_t fallback) const {
  return contains(key) ? integer(key) : fallback;
}
double GgufMetadata::number(std::string_view key, double fallback) const {
  return contains(key) ? number(key) : fallback;
}
bool GgufMetadata::flag(std::string_view key, bool fallback) const {
  return contains(key) ? integer(key) != 0 : fallback;
}
std::vector<int64_t> GgufMetadata::integers(std::string_view key) const {
  return contains(key) ? items<int64_t>(key, "whole numbers") : std::vector<int64_t>();
}
std::vector<double> GgufMetadata::numbers(std::string_view key) const {
  return contains(key) ? items<double>(key, "numbers") : std::vector<double>();
}
std::vector<std::string> GgufMetadata::texts(std::string_view key) const {
  return contains(key) ? items<std::string>(key, "texts") : std::vector<std::string>();
}

}  // namespace sennit::io
