#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"
#include "tensor/tensor.h"

namespace sennit::io {

// The safetensors format: u64 header length, JSON header, then the tensors' bytes back to back, little-endian and
// row-major. Every rule of the format is checked on reading, and one Error names the file and the tensor.

struct SafetensorsEntry {
  std::string name;
  std::string dtype;           // as the file spells it: "F32", "BF16", "F8_E4M3", ...
  std::vector<int64_t> shape;  // [] is a scalar
  int64_t begin, end;          // bytes [begin, end) of the data section
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // by rising offset
  std::map<std::string, std::string> metadata;
  int64_t data_begin;  // where the data section starts in the file
};

// Reads and checks the header of a whole file in memory; `where` goes into errors.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where);

// One file. Tensors show the mapped bytes without a copy and keep the mapping alive; they are read-only. A tensor that
// does not lie at a multiple of its element size is copied.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::string& path() const { return file_->path(); }
  const SafetensorsEntry* find(std::string_view name) const;  // nullptr when absent
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;
  // Throws Error when the name is absent, or its dtype or rank has no place in Tensor (bytes() still reads it).
  Tensor tensor(const std::string& name) const;

  // Compares the data section with the checksum in the metadata. Throws Error where they differ; false when the file
  // carries none.
  bool verify() const;

 private:
  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_;
};

// All tensors of a model: one .safetensors file, an .index.json with its shards, or a folder that holds either
// (model.safetensors, else model.safetensors.index.json).
class Safetensors {
 public:
  explicit Safetensors(const std::string& path);

  std::vector<std::string> names() const;  // sorted
  bool contains(std::string_view name) const { return place_.find(name) != place_.end(); }
  const SafetensorsEntry& entry(const std::string& name) const;
  Tensor tensor(const std::string& name) const;
  const std::vector<SafetensorsFile>& files() const { return files_; }
  bool verify() const;  // every file; false when any carries no checksum

 private:
  const SafetensorsFile& file_of(const std::string& name) const;
  void add(SafetensorsFile file);
  void add_shards(const std::string& index_path);
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> place_;  // tensor -> index of its file
  std::string path_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};
using SafetensorsMetadata = std::map<std::string, std::string>;

// Writes one file atomically. The bytes depend only on the contents: tensors lie by falling element size, then name.
// Metadata gains "format": "pt" where absent, which other readers insist on, and "sennit.checksum", the xxHash64 of the
// data section. Names must be distinct.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       SafetensorsMetadata metadata = {});

// Writes model.safetensors into `folder`, or, above `max_shard_bytes` of data, shards model-00001-of-0000K.safetensors
// and model.safetensors.index.json. The folder should be an AtomicFolder's: the files appear one by one.
void write_safetensors_folder(const std::string& folder, std::span<const NamedTensor> tensors,
                              int64_t max_shard_bytes = int64_t{5} << 30, const SafetensorsMetadata& metadata = {});

}  // namespace sennit::io
