#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/utf8.h"
#include "io/atomic_file.h"
#include "io/checksum.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "io/safetensors_format.h"

namespace sennit::io {
namespace {

using safetensors_format::format_of;
using Tensors = std::vector<const NamedTensor*>;

Tensors in_file_order(std::span<const NamedTensor> tensors) {
  Tensors sorted;
  for (const NamedTensor& t : tensors) sorted.push_back(&t);
  std::sort(sorted.begin(), sorted.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const int x = dtype_bits(a->tensor.dtype()), y = dtype_bits(b->tensor.dtype());
    return x != y ? x > y : a->name < b->name;
  });
  return sorted;
}

void check_names(std::span<const NamedTensor> tensors, const std::string& where) {
  std::vector<std::string_view> names;
  for (const NamedTensor& t : tensors) {
    SENNIT_CHECK(t.tensor.defined(), "tensor `{}` is empty", t.name);
    if (!is_utf8(t.name) || t.name == "__metadata__") fail({"safetensors", "a tensor's name in UTF-8", t.name, where});
    names.push_back(t.name);
  }
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) fail({"safetensors", "each tensor once", fmt::format("`{}` again", *twin), where});
}

std::string header_of(const Tensors& tensors, SafetensorsMetadata metadata) {
  Xxh64 hash;
  for (const NamedTensor* t : tensors) hash.update(t->tensor.raw(), t->tensor.bytes());
  metadata.emplace("format", "pt");
  metadata[safetensors_format::kChecksumKey] = safetensors_format::checksum_text(hash.digest());
  Json header = Json::object();
  header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const NamedTensor* t : tensors) {
    Json entry = Json::object();
    entry["dtype"] = format_of(t->tensor.dtype()).name;
    entry["shape"] = std::vector<int64_t>(t->tensor.shape().begin(), t->tensor.shape().end());
    entry["data_offsets"] = {offset, offset + t->tensor.bytes()};
    append_member(header, t->name, std::move(entry));
    offset += t->tensor.bytes();
  }
  std::string text = json_text(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, SafetensorsMetadata metadata) {
  check_names(tensors, path);
  const Tensors sorted = in_file_order(tensors);
  const std::string header = header_of(sorted, std::move(metadata));
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(&length, sizeof length);
  file.write(header);
  for (const NamedTensor* t : sorted) file.write(t->tensor.raw(), t->tensor.bytes());
  file.commit();
}

void write_safetensors_folder(const std::string& folder, std::span<const NamedTensor> tensors, int64_t max_shard_bytes,
                              const SafetensorsMetadata& metadata) {
  check_names(tensors, folder);
  const std::filesystem::path root(folder);
  std::vector<std::vector<NamedTensor>> shards;
  int64_t total = 0, in_shard = 0;
  for (const NamedTensor& t : tensors) {
    if (shards.empty() || (in_shard > 0 && in_shard + t.tensor.bytes() > max_shard_bytes))
      shards.emplace_back(), in_shard = 0;
    shards.back().push_back(t);
    in_shard += t.tensor.bytes(), total += t.tensor.bytes();
  }
  if (shards.size() <= 1) return write_safetensors((root / "model.safetensors").string(), tensors, metadata);
  Json map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    write_safetensors((root / name).string(), shards[i], metadata);
    for (const NamedTensor& t : shards[i]) append_member(map, t.name, name);
  }
  Json index = Json::object();
  index["metadata"]["total_size"] = total;
  index["weight_map"] = std::move(map);
  write_json_file((root / "model.safetensors.index.json").string(), index);
}

}  // namespace sennit::io
