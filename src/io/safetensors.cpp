#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "io/checksum.h"
#include "io/json_file.h"
#include "io/safetensors_format.h"

namespace sennit::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr const char* kIndexFile = "model.safetensors.index.json";

using safetensors_format::find_dtype;
using safetensors_format::kChecksumKey;

// Reads the entry of one tensor, all but its place among the others.
class EntryReader {
 public:
  EntryReader(const std::string& name, const Json& value, int64_t data_bytes, const std::string& where)
      : name_(name), value_(value), data_bytes_(data_bytes), where_(where) {}

  SafetensorsEntry read() {
    if (!value_.is_object()) refuse("an object with dtype, shape and data_offsets", value_.type_name());
    for (const auto& [key, ignored] : value_.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        unknown_key(key, {"dtype", "shape", "data_offsets"}, "safetensors", place());
    const Json& dtype = member("dtype");
    if (!dtype.is_string()) refuse("dtype to be text", dtype.type_name());
    const auto* format = find_dtype(dtype.get_ref<const std::string&>());
    if (!format) refuse("a dtype of the format", fmt::format("`{}`", dtype.get_ref<const std::string&>()));
    SafetensorsEntry entry{name_, format->name, numbers("shape"), 0, 0};
    const auto offsets = numbers("data_offsets");
    if (offsets.size() != 2) refuse("data_offsets to be two numbers", fmt::format("{}", offsets.size()));
    entry.begin = offsets[0], entry.end = offsets[1];
    if (entry.begin > entry.end || entry.end > data_bytes_)
      refuse(fmt::format("data_offsets inside the {} bytes of data", data_bytes_),
             fmt::format("[{}, {}]", entry.begin, entry.end));
    const int64_t bytes = bytes_of(entry.shape, format->bits);
    if (entry.end - entry.begin != bytes)
      refuse(fmt::format("{} bytes for its shape and dtype", bytes), fmt::format("{}", entry.end - entry.begin));
    return entry;
  }

 private:
  std::string place() const { return fmt::format("{}, tensor `{}`", where_, name_); }

  [[noreturn]] void refuse(const std::string& expected, const std::string& found) {
    fail({"safetensors", expected, found, place()});
  }

  const Json& member(const char* key) {
    const auto it = value_.find(key);
    if (it == value_.end()) refuse(fmt::format("`{}`", key), "none");
    return *it;
  }

  std::vector<int64_t> numbers(const char* key) {
    const Json& list = member(key);
    if (!list.is_array()) refuse(fmt::format("{} to be a list", key), list.type_name());
    std::vector<int64_t> out;
    for (const Json& x : list) {
      if (!x.is_number_unsigned() || x.get<uint64_t>() > uint64_t{INT64_MAX})
        refuse(fmt::format("{} to hold whole numbers from 0 to 2^63 - 1", key), json_text(x));
      out.push_back(x.get<int64_t>());
    }
    return out;
  }

  int64_t bytes_of(const std::vector<int64_t>& shape, int bits) {
    int64_t total = bits;  // of what is beside zeros, which has to fit, too
    for (const int64_t n : shape)
      if (__builtin_mul_overflow(total, std::max<int64_t>(1, n), &total))
        refuse("a shape whose bits fit 63 bits", "one that overflows");
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
    if (total % 8 != 0) refuse("a shape that fills whole bytes", fmt::format("{} bits", total));
    return total / 8;
  }

  const std::string& name_;
  const Json& value_;
  int64_t data_bytes_;
  const std::string& where_;
};

// The tensors must cover the data section without hole or overlap. Empty ones may lie at any border.
void check_tiling(std::vector<SafetensorsEntry>& entries, int64_t data_bytes, const std::string& where) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  int64_t covered = 0;
  for (const SafetensorsEntry& e : entries) {
    if (e.begin != covered)
      fail({"safetensors", fmt::format("data from byte {} on, without hole or overlap", covered),
            fmt::format("byte {}", e.begin), fmt::format("{}, tensor `{}`", where, e.name)});
    covered = e.end;
  }
  if (covered != data_bytes)
    fail({"safetensors", fmt::format("tensors that cover all {} bytes of data", data_bytes), fmt::format("{}", covered),
          where});
}

std::map<std::string, std::string> read_metadata(const Json& value, const std::string& where) {
  if (!value.is_object()) fail({"safetensors", "__metadata__ to be an object", value.type_name(), where});
  std::map<std::string, std::string> out;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      fail({"safetensors", fmt::format("text for `{}` in __metadata__", key), text.type_name(), where});
    out[key] = text.get<std::string>();
  }
  return out;
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  if (file.size() < 8) fail({"safetensors", "at least 8 bytes", fmt::format("{}", file.size()), where});
  uint64_t length;
  std::memcpy(&length, file.data(), 8);
  const uint64_t room = std::min<uint64_t>(kMaxHeader, file.size() - 8);
  if (length > room)
    fail({"safetensors", fmt::format("a header of at most {} bytes", room), fmt::format("{}", length), where});
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  if (!text.starts_with('{')) fail({"safetensors", "a header that begins with `{`", "something else", where});
  const Json header = parse_json(text, where + ", header", {.max_bytes = int64_t{kMaxHeader}, .max_depth = 4});
  const auto data_bytes = static_cast<int64_t>(file.size() - 8 - length);
  SafetensorsHeader out{.entries = {}, .metadata = {}, .data_begin = static_cast<int64_t>(8 + length)};
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      out.metadata = read_metadata(value, where);
    else
      out.entries.push_back(EntryReader(name, value, data_bytes, where).read());
  }
  check_tiling(out.entries, data_bytes, where);
  return out;
}

SafetensorsFile::SafetensorsFile(const std::string& path)
    : file_(MappedFile::open(path)), header_(parse_safetensors(file_->bytes(), path)) {
  for (size_t i = 0; i < header_.entries.size(); ++i) index_[header_.entries[i].name] = i;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &header_.entries[it->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsEntry& entry) const {
  return file_->bytes().subspan(header_.data_begin + entry.begin, entry.end - entry.begin);
}

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry* entry = find(name);
  if (!entry) fail({"safetensors", fmt::format("a tensor `{}`", name), "none", path()});
  const auto place = [&] { return fmt::format("{}, tensor `{}`", path(), name); };
  const auto dtype = find_dtype(entry->dtype)->dtype;
  if (!dtype) fail({"safetensors", "a dtype that tensors have", entry->dtype, place()});
  if (entry->shape.size() > Shape::kMaxRank)
    fail({"safetensors", fmt::format("at most {} dimensions", Shape::kMaxRank), fmt::format("{}", entry->shape.size()),
          place()});
  const Shape shape{std::span(entry->shape)};
  const auto content = bytes(*entry);
  const int element = dtype_bits(*dtype) / 8;
  if (reinterpret_cast<uintptr_t>(content.data()) % element != 0) {
    Tensor copy(shape, *dtype);
    if (!content.empty()) std::memcpy(copy.raw(), content.data(), content.size());
    return copy;
  }
  using Owner = std::shared_ptr<const MappedFile>;
  return Tensor::adopt(
      const_cast<std::byte*>(content.data()), shape, *dtype, [](void* owner) { delete static_cast<Owner*>(owner); },
      new Owner(file_));
}

bool SafetensorsFile::verify() const {
  const auto stored = metadata().find(kChecksumKey);
  if (stored == metadata().end()) return false;
  const std::string found = safetensors_format::checksum_text(xxh64(file_->bytes().subspan(header_.data_begin)));
  if (found != stored->second)
    fail({"safetensors", fmt::format("data with checksum {}", stored->second), found, path()});
  return true;
}

Safetensors::Safetensors(const std::string& path) : path_(path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  fs::path file(path);
  if (fs::is_directory(file, ignored)) {
    file = fs::path(path) / "model.safetensors";
    if (!fs::exists(file, ignored)) file = fs::path(path) / kIndexFile;
    if (!fs::exists(file, ignored))
      fail({"safetensors", fmt::format("model.safetensors or {}", kIndexFile), "neither", path});
  }
  if (file.extension() == ".json")
    add_shards(file.string());
  else
    add(SafetensorsFile(file.string()));
}

void Safetensors::add_shards(const std::string& index_path) {
  namespace fs = std::filesystem;
  const Json index = read_json_file(index_path);
  const auto map = index.is_object() ? index.find("weight_map") : index.end();
  if (map == index.end() || !map->is_object())
    fail({"safetensors index", "an object `weight_map`", "none", index_path});
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [name, shard] : map->items()) {
    const auto text = shard.is_string() ? shard.get<std::string>() : "";
    if (text.empty() || text == ".." || fs::path(text).filename() != text)
      fail({"safetensors index", fmt::format("a file beside it for `{}`", name), json_text(shard), index_path});
    shards[text].push_back(name);
  }
  for (const auto& [shard, names] : shards) {
    SafetensorsFile part((fs::path(index_path).parent_path() / shard).string());
    for (const auto& name : names)
      if (!part.find(name))
        fail({"safetensors index", fmt::format("`{}` in {}", name, shard), "no such tensor", index_path});
    add(std::move(part));
  }
  if (place_.size() != map->size())
    fail({"safetensors index", fmt::format("{} tensors in the shards", map->size()), fmt::format("{}", place_.size()),
          index_path});
}

void Safetensors::add(SafetensorsFile file) {
  for (const auto& e : file.entries())
    if (!place_.emplace(e.name, files_.size()).second)
      fail({"safetensors", fmt::format("tensor `{}` once", e.name), "it again", file.path()});
  files_.push_back(std::move(file));
}

std::vector<std::string> Safetensors::names() const {
  std::vector<std::string> out;
  for (const auto& [name, ignored] : place_) out.push_back(name);
  return out;
}

const SafetensorsFile& Safetensors::file_of(const std::string& name) const {
  const auto it = place_.find(name);
  if (it != place_.end()) return files_[it->second];
  const std::string near = closest(name, names());
  fail({"safetensors", fmt::format("a tensor `{}`", name),
        near.empty() ? "none" : fmt::format("none; the nearest is `{}`", near), path_});
}

const SafetensorsEntry& Safetensors::entry(const std::string& name) const {
  return *file_of(name).find(name);
}
Tensor Safetensors::tensor(const std::string& name) const {
  return file_of(name).tensor(name);
}

bool Safetensors::verify() const {
  bool all = true;
  for (const auto& file : files_) all = file.verify() && all;
  return all;
}

}  // namespace sennit::io
