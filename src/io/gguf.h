#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/blocks.h"
#include "io/mapped_file.h"

namespace sennit::io {

// The GGUF format, version 3 (ggml's docs/gguf.md), little-endian: typed metadata by key, then tensors in blocks. Every
// rule is checked on reading, and one Error names the file and the key or tensor.

constexpr int kMostGgufDimensions = 4;

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, list, u64, i64, f64 };
const char* to_string(GgufType type);

// A value of the metadata: one item, or a list of items of one type. Whole numbers and flags are kept as int64_t (a u64
// by its bits), fractions as double.
struct GgufValue {
  GgufType type = GgufType::u32;  // of the items; never `list`
  bool list = false;
  std::variant<std::vector<int64_t>, std::vector<double>, std::vector<std::string>> items;

  static GgufValue of(uint32_t value) { return {GgufType::u32, false, std::vector<int64_t>{value}}; }
  static GgufValue of(float value) { return {GgufType::f32, false, std::vector<double>{value}}; }
  static GgufValue of(bool value) { return {GgufType::boolean, false, std::vector<int64_t>{value}}; }
  static GgufValue of(const char* value) { return of(std::string(value)); }
  static GgufValue of(std::string value) { return {GgufType::text, false, std::vector<std::string>{std::move(value)}}; }
  static GgufValue of(std::vector<std::string> values) { return {GgufType::text, true, std::move(values)}; }
  static GgufValue list_of(GgufType type, std::vector<int64_t> values) { return {type, true, std::move(values)}; }
  static GgufValue list_of(std::vector<double> values) { return {GgufType::f32, true, std::move(values)}; }
  size_t size() const;
};

// Metadata in the order of the file. The getters without a fallback throw Error when the key is absent; all of them
// when it holds something else.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string where = "metadata") : where_(std::move(where)) {}
  void set(std::string key, GgufValue value);  // replaces
  const GgufValue* find(std::string_view key) const;
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  std::string text(std::string_view key) const;
  int64_t integer(std::string_view key) const;  // a list of equal integers counts as one
  double number(std::string_view key) const;    // an integer counts as a number
  std::string text(std::string_view key, std::string fallback) const;
  int64_t integer(std::string_view key, int64_t fallback) const;
  double number(std::string_view key, double fallback) const;
  bool flag(std::string_view key, bool fallback) const;
  std::vector<int64_t> integers(std::string_view key) const;  // of a list or a single one; empty when absent
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;

  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }
  const std::string& where() const { return where_; }

 private:
  const GgufValue& get(std::string_view key) const;
  template <class T>
  const std::vector<T>& items(std::string_view key, const char* expected) const;
  std::vector<std::pair<std::string, GgufValue>> entries_;
  std::map<std::string, size_t, std::less<>> index_;
  std::string where_;
};

struct GgufEntry {
  std::string name;
  BlockFormat format;
  Shape shape;         // slowest first; the file lists the fastest first
  int64_t begin, end;  // bytes of the file
};

struct GgufHeader {
  GgufMetadata metadata;
  std::vector<GgufEntry> entries;  // in the order of the file
};

// Reads and checks all but the tensors' contents of a whole file in memory; `where` goes into errors.
GgufHeader parse_gguf(std::span<const std::byte> file, const std::string& where);

// One file, mapped: tensors show its bytes without a copy and keep it mapped.
class GgufFile {
 public:
  explicit GgufFile(const std::string& path);
  const GgufMetadata& metadata() const { return header_.metadata; }
  const std::vector<GgufEntry>& entries() const { return header_.entries; }
  const std::string& path() const { return file_->path(); }
  const GgufEntry* find(std::string_view name) const;  // nullptr when absent
  StoredTensor tensor(const std::string& name) const;  // throws Error when absent

 private:
  std::shared_ptr<const MappedFile> file_;
  GgufHeader header_;
  std::map<std::string, size_t, std::less<>> index_;
};

struct NamedStored {
  std::string name;
  StoredTensor tensor;
};

// Writes one file atomically; the bytes depend on the contents alone. Tensors keep their order and begin at multiples
// of 32 bytes (general.alignment, where set). Throws Error for names that are empty, repeated or beyond 63 bytes, and
// for more than four dimensions, which other readers refuse.
void write_gguf(const std::string& path, const GgufMetadata& metadata, std::span<const NamedStored> tensors);

}  // namespace sennit::io
