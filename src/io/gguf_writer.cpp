#include <algorithm>
#include <cstring>
#include <set>

#include "base/error.h"
#include "io/atomic_file.h"
#include "io/gguf.h"

namespace sennit::io {
namespace {

constexpr size_t kLongestTensorName = 63;

class Writer {
 public:
  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view s) {
    number(uint64_t{s.size()});
    bytes_ += s;
  }
  void pad(int64_t alignment) { bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment, '\0'); }

  void value(const GgufValue& v) {
    number(v.list ? GgufType::list : v.type);
    if (v.list) {
      number(v.type);
      number(uint64_t{v.size()});
    }
    SENNIT_CHECK(v.list || v.size() == 1, "{} values for one", v.size());
    std::visit(
        [&](const auto& items) {
          for (const auto& item : items) put(v.type, item);
        },
        v.items);
  }

  const std::string& bytes() const { return bytes_; }

 private:
  void put(GgufType, const std::string& s) { text(s); }
  void put(GgufType type, double x) {
    if (type == GgufType::f32)
      number(static_cast<float>(x));
    else
      number(x);
  }
  void put(GgufType type, int64_t n) {
    static constexpr int kBytes[] = {1, 1, 2, 2, 4, 4, 0, 1, 0, 0, 8, 8, 0};
    bytes_.append(reinterpret_cast<const char*>(&n), kBytes[static_cast<int>(type)]);
  }

  std::string bytes_;
};

void check(std::span<const NamedStored> tensors, const std::string& path) {
  std::set<std::string_view> names;
  for (const NamedStored& t : tensors) {
    if (t.name.empty() || t.name.size() > kLongestTensorName)
      fail({"GGUF", fmt::format("tensor names of 1 to {} bytes", kLongestTensorName), fmt::format("`{}`", t.name),
            path});
    if (!names.insert(t.name).second) fail({"GGUF", "each tensor once", fmt::format("`{}` again", t.name), path});
    if (t.tensor.shape.rank() > kMostGgufDimensions)
      fail({"GGUF", fmt::format("at most {} dimensions", kMostGgufDimensions),
            fmt::format("`{}` {}", t.name, t.tensor.shape.str()), path});
  }
}

}  // namespace

void write_gguf(const std::string& path, const GgufMetadata& metadata, std::span<const NamedStored> tensors) {
  check(tensors, path);
  const int64_t alignment = metadata.integer("general.alignment", 32);
  const auto padded = [&](int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
  Writer header;
  header.number('G'), header.number('G'), header.number('U'), header.number('F');
  header.number(uint32_t{3});
  header.number(uint64_t{tensors.size()});
  header.number(uint64_t{metadata.entries().size()});
  for (const auto& [key, value] : metadata.entries()) {
    header.text(key);
    header.value(value);
  }
  int64_t offset = 0;
  for (const NamedStored& t : tensors) {
    header.text(t.name);
    header.number(static_cast<uint32_t>(t.tensor.shape.rank()));
    for (int i = t.tensor.shape.rank() - 1; i >= 0; --i) header.number(static_cast<uint64_t>(t.tensor.shape[i]));
    header.number(layout_of(t.tensor.format).id);
    header.number(static_cast<uint64_t>(offset));
    offset += padded(std::ssize(t.tensor.bytes));
  }
  header.pad(alignment);
  AtomicFile file(path);
  file.write(header.bytes());
  const std::string zeros(alignment, '\0');
  for (const NamedStored& t : tensors) {
    file.write(t.tensor.bytes.data(), t.tensor.bytes.size());
    file.write(zeros.data(), padded(std::ssize(t.tensor.bytes)) - std::ssize(t.tensor.bytes));
  }
  file.commit();
}

}  // namespace sennit::io
