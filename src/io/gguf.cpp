#include "io/gguf.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"

namespace sennit::io {
namespace {

constexpr uint32_t kVersion = 3;
constexpr int64_t kMostEntries = 1 << 20;  // of metadata, and of tensors
constexpr int64_t kMostItems = 1 << 24;    // of a list
constexpr int64_t kLongestName = 1 << 16;
constexpr int64_t kLeastTextBytes = 8;  // its length alone
constexpr int64_t kMostElements = int64_t{1} << 48;

int64_t item_bytes(GgufType type) {
  static constexpr int64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, kLeastTextBytes, 12, 8, 8, 8};
  return kBytes[static_cast<int>(type)];
}

class Reader {
 public:
  Reader(std::span<const std::byte> file, const std::string& where) : file_(file), where_(where) {}

  GgufHeader read() {
    if (file_.size() < 24 || std::memcmp(file_.data(), "GGUF", 4) != 0)
      refuse("a file that begins with GGUF", file_.size() < 24 ? "a shorter file" : "something else");
    at_ = 4;
    const auto version = number<uint32_t>("version");
    if (version == 0x03000000) refuse("a little-endian file", "a big-endian one");
    if (version != kVersion) refuse(fmt::format("version {}", kVersion), fmt::format("{}", version));
    const int64_t tensors = count("the number of tensors", kMostEntries, 24);
    const int64_t keys = count("the number of keys", kMostEntries, 13);
    GgufHeader out{GgufMetadata(where_), {}};
    for (int64_t i = 0; i < keys; ++i) read_pair(out.metadata);
    for (int64_t i = 0; i < tensors; ++i) out.entries.push_back(read_entry());
    place(out);
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& expected, const std::string& found) const {
    fail({"GGUF", expected, found, fmt::format("{}, offset {}", where_, at_)});
  }
  int64_t left() const { return static_cast<int64_t>(file_.size()) - at_; }

  template <class T>
  T number(const std::string& what) {
    if (left() < static_cast<int64_t>(sizeof(T))) refuse(what, "the end of the file");
    T value;
    std::memcpy(&value, file_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  // A count of things that take at least `least` bytes each: no more than the rest of the file holds.
  int64_t count(const std::string& what, int64_t most, int64_t least) {
    const auto n = number<uint64_t>(what);
    const uint64_t room = static_cast<uint64_t>(std::min(most, left() / least));
    if (n > room) refuse(fmt::format("{} to be at most {}", what, room), fmt::format("{}", n));
    return static_cast<int64_t>(n);
  }

  std::string text(const std::string& what, int64_t most) {
    const int64_t n = count("the length of " + what, most, 1);
    std::string s(reinterpret_cast<const char*>(file_.data()) + at_, n);
    at_ += n;
    return s;
  }

  std::string name(const std::string& what) {
    std::string s = text(what, kLongestName);
    if (s.empty() || !is_utf8(s)) refuse(what + " in UTF-8", s.empty() ? "an empty one" : "something else");
    return s;
  }

  GgufType type(const std::string& key) {
    const auto t = number<uint32_t>("the type of `" + key + "`");
    if (t > static_cast<uint32_t>(GgufType::f64))
      refuse(fmt::format("a type from 0 to 12 for `{}`", key), fmt::format("{}", t));
    return static_cast<GgufType>(t);
  }

  void read_pair(GgufMetadata& into) {
    const std::string key = name("a key");
    if (into.contains(key)) refuse("each key once", fmt::format("`{}` again", key));
    GgufValue value{type(key), false, {}};
    int64_t n = 1;
    if (value.type == GgufType::list) {
      value.list = true;
      value.type = type(key);
      if (value.type == GgufType::list) refuse(fmt::format("a flat list in `{}`", key), "a list of lists");
      n = count(fmt::format("the length of `{}`", key), kMostItems, item_bytes(value.type));
    }
    read_items(key, n, value);
    into.set(key, std::move(value));
  }

  template <class T, class Item>
  void read_numbers(const std::string& key, int64_t n, GgufValue& value) {
    std::vector<Item> items;
    items.reserve(n);
    for (int64_t i = 0; i < n; ++i) items.push_back(static_cast<Item>(number<T>("the value of `" + key + "`")));
    value.items = std::move(items);
  }

  void read_items(const std::string& key, int64_t n, GgufValue& value) {
    switch (value.type) {
      case GgufType::u8:
        return read_numbers<uint8_t, int64_t>(key, n, value);
      case GgufType::i8:
        return read_numbers<int8_t, int64_t>(key, n, value);
      case GgufType::u16:
        return read_numbers<uint16_t, int64_t>(key, n, value);
      case GgufType::i16:
        return read_numbers<int16_t, int64_t>(key, n, value);
      case GgufType::u32:
        return read_numbers<uint32_t, int64_t>(key, n, value);
      case GgufType::i32:
        return read_numbers<int32_t, int64_t>(key, n, value);
      case GgufType::boolean:
        return read_numbers<uint8_t, int64_t>(key, n, value);
      case GgufType::u64:
        return read_numbers<uint64_t, int64_t>(key, n, value);
      case GgufType::i64:
        return read_numbers<int64_t, int64_t>(key, n, value);
      case GgufType::f32:
        return read_numbers<float, double>(key, n, value);
      case GgufType::f64:
        return read_numbers<double, double>(key, n, value);
      case GgufType::list:
        break;
      case GgufType::text: {
        std::vector<std::string> items;
        for (int64_t i = 0; i < n; ++i) items.push_back(text("a text of `" + key + "`", left()));
        value.items = std::move(items);
      }
    }
  }

  // `begin` is still relative to the data.
  GgufEntry read_entry() {
    GgufEntry e{name("a tensor's name"), BlockFormat::f32, {}, 0, 0};
    const auto refuse_tensor = [&](const std::string& expected, const std::string& found) {
      refuse(fmt::format("tensor `{}`: {}", e.name, expected), found);
    };
    const auto rank = number<uint32_t>("a number of dimensions");
    if (rank > kMostGgufDimensions)
      refuse_tensor(fmt::format("at most {} dimensions", kMostGgufDimensions), fmt::format("{}", rank));
    std::vector<int64_t> lengths(rank);
    int64_t elements = 1, beside_zeros = 1;  // what some of the dimensions make has to be small, too
    for (int64_t& n : lengths) {
      const auto length = number<uint64_t>("a dimension");
      if (length > static_cast<uint64_t>(kMostElements / beside_zeros))
        refuse_tensor("fewer numbers", fmt::format("a dimension of {}", length));
      n = static_cast<int64_t>(length), elements *= n, beside_zeros *= std::max<int64_t>(1, n);
    }
    const auto id = number<uint32_t>("a tensor's type");
    const auto format = block_format_of_id(id);
    if (!format) refuse_tensor("a type that this program decodes", fmt::format("GGUF type {}", id));
    e.format = *format;
    const int64_t block = layout_of(e.format).numbers, row = rank ? lengths[0] : 1;
    if (row % block != 0) refuse_tensor(fmt::format("rows of whole blocks of {}", block), fmt::format("{}", row));
    std::reverse(lengths.begin(), lengths.end());
    e.shape = Shape(std::span<const int64_t>(lengths));
    const auto offset = number<uint64_t>("a tensor's offset");
    if (offset > file_.size()) refuse_tensor("an offset within the file", fmt::format("{}", offset));
    e.begin = static_cast<int64_t>(offset);
    e.end = e.begin + elements / block * layout_of(e.format).bytes;
    return e;
  }

  // Puts the tensors where they lie and checks that they are there, aligned and apart.
  void place(GgufHeader& h) {
    const int64_t alignment = h.metadata.integer("general.alignment", 32);
    if (alignment < 8 || alignment > 1 << 20 || alignment % 8 != 0)
      refuse("general.alignment to be a multiple of 8 up to 1 MiB", fmt::format("{}", alignment));
    const int64_t data = (at_ + alignment - 1) / alignment * alignment;
    std::vector<const GgufEntry*> sorted;
    std::map<std::string_view, int> names;
    for (GgufEntry& e : h.entries) {
      if (names[e.name]++) refuse("each tensor once", fmt::format("`{}` again", e.name));
      if (e.begin % alignment != 0)
        refuse(fmt::format("tensor `{}` at a multiple of {}", e.name, alignment), fmt::format("{}", e.begin));
      e.begin += data, e.end += data;
      if (e.end > static_cast<int64_t>(file_.size()))
        refuse(fmt::format("tensor `{}` within the {} bytes of the file", e.name, file_.size()),
               fmt::format("its end at {}", e.end));
      sorted.push_back(&e);
    }
    std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->begin < b->begin; });
    for (size_t i = 1; i < sorted.size(); ++i)
      if (sorted[i]->begin < sorted[i - 1]->end)
        refuse("tensors apart from one another", fmt::format("`{}` within `{}`", sorted[i]->name, sorted[i - 1]->name));
  }

  std::span<const std::byte> file_;
  const std::string& where_;
  int64_t at_ = 0;
};

}  // namespace

GgufHeader parse_gguf(std::span<const std::byte> file, const std::string& where) {
  return Reader(file, where).read();
}

GgufFile::GgufFile(const std::string& path) : file_(MappedFile::open(path)), header_(parse_gguf(file_->bytes(), path)) {
  for (size_t i = 0; i < header_.entries.size(); ++i) index_[header_.entries[i].name] = i;
}

const GgufEntry* GgufFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &header_.entries[it->second];
}

StoredTensor GgufFile::tensor(const std::string& name) const {
  const GgufEntry* e = find(name);
  if (!e) fail({"GGUF", fmt::format("a tensor `{}`", name), "none", path()});
  return {e->format, e->shape, file_->bytes().subspan(e->begin, e->end - e->begin), file_};
}

}  // namespace sennit::io
