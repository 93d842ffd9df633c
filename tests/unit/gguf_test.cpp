#include "io/gguf.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "support/temp_folder.h"

namespace sennit::io::gguf_test {

// A file spelled out byte by byte.
struct Spelled {
  std::string bytes;
  template <class T>
  Spelled& n(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Spelled& t(const std::string& s) {
    n(uint64_t{s.size()});
    bytes += s;
    return *this;
  }
  Spelled& head(uint64_t tensors, uint64_t keys) {
    bytes += "GGUF";
    return n(uint32_t{3}).n(tensors).n(keys);
  }
  Spelled& tensor(const std::string& name, std::vector<uint64_t> lengths, uint32_t type, uint64_t offset) {
    t(name).n(static_cast<uint32_t>(lengths.size()));
    for (const uint64_t l : lengths) n(l);
    return n(type).n(offset);
  }
  Spelled& data(size_t count) {
    bytes.resize((bytes.size() + 31) / 32 * 32);
    for (size_t i = 0; i < count; ++i) bytes += static_cast<char>(i);
    return *this;
  }
};

GgufHeader parse(const std::string& file) {
  return parse_gguf(std::as_bytes(std::span(file)), "t.gguf");
}
std::string refusal(const Spelled& s) {
  return error_of([&] { parse(s.bytes); });
}

TEST(Gguf, ReadsWhatTheFormatSays) {
  Spelled s;
  s.head(2, 3).t("general.architecture").n(uint32_t{8}).t("llama");
  s.t("a.list").n(uint32_t{9}).n(uint32_t{5}).n(uint64_t{3}).n(int32_t{-1}).n(int32_t{0}).n(int32_t{7});
  s.t("x").n(uint32_t{6}).n(0.5f);
  s.tensor("w", {4, 2}, 0, 0).tensor("q", {32}, 8, 32).data(66);
  const GgufHeader h = parse(s.bytes);
  EXPECT_EQ(h.metadata.text("general.architecture"), "llama");
  EXPECT_EQ(h.metadata.integers("a.list"), (std::vector<int64_t>{-1, 0, 7}));
  EXPECT_EQ(h.metadata.number("x"), 0.5);
  ASSERT_EQ(h.entries.size(), 2u);
  EXPECT_EQ(h.entries[0].shape, (Shape{2, 4}));
  EXPECT_EQ(h.entries[1].format, BlockFormat::q8_0);
  EXPECT_EQ(h.entries[1].end - h.entries[1].begin, 34);
  EXPECT_EQ(h.entries[1].begin - h.entries[0].begin, 32);
}

TEST(Gguf, GoesRoundForEveryType) {
  TempFolder dir;
  GgufMetadata m;
  Rng rng(2);
  for (const GgufType type : {GgufType::u8, GgufType::i8, GgufType::u16, GgufType::i16, GgufType::u32, GgufType::i32,
                              GgufType::boolean, GgufType::u64, GgufType::i64}) {
    const bool is_signed =
        type == GgufType::i8 || type == GgufType::i16 || type == GgufType::i32 || type == GgufType::i64;
    m.set(fmt::format("one.{}", to_string(type)), {type, false, std::vector<int64_t>{is_signed ? -1 : 1}});
    m.set(fmt::format("many.{}", to_string(type)), GgufValue::list_of(type, {0, 1, is_signed ? -1 : 1}));
  }
  m.set("most", {GgufType::u64, false, std::vector<int64_t>{-1}});
  m.set("single", GgufValue::of(0.1f));
  m.set("double", {GgufType::f64, false, std::vector<double>{0.1}});
  m.set("texts", GgufValue::of(std::vector<std::string>{"a", "", std::string("\xff\0b", 3)}));
  m.set("empty", GgufValue::list_of({}));
  std::vector<NamedStored> tensors;
  for (const BlockFormat f : block_formats()) {
    FreshTensor t = fresh(f, {3, 256});
    for (size_t i = 0; i < t.tensor.bytes.size(); ++i) t.bytes[i] = static_cast<std::byte>(rng.bits());
    tensors.push_back({layout_of(f).name, t.tensor});
  }
  tensors.push_back({"scalar", fresh(BlockFormat::f32, {}).tensor});
  tensors.push_back({"none", fresh(BlockFormat::f16, {0, 4}).tensor});
  const std::string path = dir / "m.gguf";
  write_gguf(path, m, tensors);
  const GgufFile file(path);
  ASSERT_EQ(file.metadata().entries().size(), m.entries().size());
  for (size_t i = 0; i < m.entries().size(); ++i) {
    const auto& [key, value] = m.entries()[i];
    const auto& [key2, value2] = file.metadata().entries()[i];
    EXPECT_EQ(key, key2);
    EXPECT_EQ(value.type, value2.type);
    EXPECT_EQ(value.list, value2.list);
    if (value.type == GgufType::f32 && value.size()) {
      EXPECT_EQ(file.metadata().number(key), 0.1);
    } else {
      EXPECT_TRUE(value.items == value2.items) << key;
    }
  }
  EXPECT_NE(error_of([&] { file.metadata().integer("most"); }).find("below 2^63"), std::string::npos);
  for (const NamedStored& t : tensors) {
    const StoredTensor back = file.tensor(t.name);
    EXPECT_EQ(back.shape, t.tensor.shape);
    EXPECT_EQ(back.format, t.tensor.format);
    EXPECT_TRUE(std::equal(back.bytes.begin(), back.bytes.end(), t.tensor.bytes.begin(), t.tensor.bytes.end()))
        << t.name;
    EXPECT_EQ((back.bytes.data() - file.tensor("f32").bytes.data()) % 32, 0);
  }
  write_gguf(dir / "n.gguf", m, tensors);
  EXPECT_EQ(slurp(path), slurp(dir / "n.gguf"));
  EXPECT_EQ(listing(dir.path()), (std::vector<std::string>{"m.gguf", "n.gguf"}));
}

TEST(Gguf, RefusesWhatBreaksARule) {
  const auto says = [](const Spelled& s, const std::string& words) {
    const std::string e = refusal(s);
    EXPECT_NE(e.find(words), std::string::npos) << e;
    EXPECT_NE(e.find("t.gguf"), std::string::npos) << e;
  };
  says(Spelled().t("junk that is long enough"), "begins with GGUF");
  Spelled old, big;
  old.bytes = "GGUF", big.bytes = "GGUF";
  says(old.n(uint32_t{2}).n(uint64_t{0}).n(uint64_t{0}), "version 3, got 2");
  says(big.n(uint32_t{0x03000000}).n(uint64_t{0}).n(uint64_t{0}), "little-endian");
  says(Spelled().head(1u << 30, 0), "number of tensors");
  says(Spelled().head(0, ~uint64_t{0}), "number of keys");
  says(Spelled().head(0, 1).n(~uint64_t{0}).n(uint64_t{0}), "length of a key");
  says(Spelled().head(0, 1).t("k").n(uint32_t{13}).n(uint64_t{0}), "type from 0 to 12 for `k`");
  says(Spelled().head(0, 1).t("k").n(uint32_t{9}).n(uint32_t{9}).n(uint64_t{0}), "list of lists");
  says(Spelled().head(0, 1).t("k").n(uint32_t{9}).n(uint32_t{0}).n(uint64_t{1} << 40), "length of `k`");
  says(Spelled().head(0, 1).t("key").n(uint32_t{10}).n(uint32_t{1}), "the value of `key`");
  says(Spelled().head(0, 2).t("k").n(uint32_t{4}).n(1).t("k").n(uint32_t{4}).n(1), "each key once");
  says(Spelled().head(1, 0).tensor("w", {4}, 4, 0).data(64), "GGUF type 4");
  says(Spelled().head(1, 0).tensor("w", {33}, 8, 0).data(64), "whole blocks of 32");
  says(Spelled().head(1, 0).tensor("w", {1, 1, 1, 1, 1}, 0, 0).data(64), "at most 4 dimensions");
  says(Spelled().head(1, 0).tensor("w", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0).data(64), "fewer numbers");
  says(Spelled().head(1, 0).tensor("w", {0, uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0).data(64), "fewer numbers");
  says(Spelled().head(1, 0).tensor("w", {4}, 0, 8).data(64), "a multiple of 32");
  says(Spelled().head(1, 0).tensor("w", {4}, 0, 64).data(64), "within the");
  says(Spelled().head(1, 0).tensor("w", {4}, 0, ~uint64_t{31}).data(64), "offset within the file");
  says(Spelled().head(2, 0).tensor("v", {16}, 0, 0).tensor("w", {4}, 0, 32).data(96), "`w` within `v`");
  says(Spelled().head(2, 0).tensor("w", {4}, 0, 0).tensor("w", {4}, 0, 32).data(96), "each tensor once");
  says(Spelled().head(0, 1).t("general.alignment").n(uint32_t{4}).n(0), "general.alignment");
}

TEST(Gguf, EveryCutIsOneError) {
  Spelled s;
  s.head(1, 2).t("k").n(uint32_t{9}).n(uint32_t{8}).n(uint64_t{2}).t("ab").t("c").t("f").n(uint32_t{12}).n(1.5);
  s.tensor("w", {8}, 0, 0).data(32);
  parse(s.bytes);
  for (size_t n = 0; n < s.bytes.size(); ++n) {
    Spelled cut;
    cut.bytes = s.bytes.substr(0, n);
    EXPECT_NE(refusal(cut), "") << n;
  }
}

TEST(Gguf, GettersSayWhatIsThere) {
  GgufMetadata m("f.gguf");
  m.set("t", GgufValue::of("text"));
  m.set("n", GgufValue::of(uint32_t{3}));
  m.set("l", GgufValue::list_of(GgufType::u32, {8, 8, 2}));
  EXPECT_EQ(m.integer("n", 9), 3);
  EXPECT_EQ(m.integer("absent", 9), 9);
  EXPECT_EQ(error_of([&] { m.integer("absent"); }), "GGUF: expected a key `absent`, got none (f.gguf)");
  EXPECT_EQ(error_of([&] { m.integer("t"); }), "GGUF: expected `t` to be a whole number, got text (f.gguf)");
  EXPECT_EQ(error_of([&] { m.integer("l"); }),
            "GGUF: expected `l` to be one whole number, got different ones (f.gguf)");
  EXPECT_TRUE(m.numbers("absent").empty());
}

TEST(Gguf, WriterRefusesWhatOthersCannotRead) {
  TempFolder dir;
  const auto write = [&](const std::string& name, Shape shape) {
    const std::vector<NamedStored> tensors = {{name, fresh(BlockFormat::f32, shape).tensor}};
    write_gguf(dir / "m.gguf", GgufMetadata(), tensors);
  };
  EXPECT_NE(error_of([&] { write(std::string(64, 'n'), {1}); }).find("1 to 63 bytes"), std::string::npos);
  EXPECT_NE(error_of([&] { write("n", {1, 1, 1, 1, 1}); }).find("4 dimensions"), std::string::npos);
  EXPECT_TRUE(listing(dir.path()).empty());
}

}  // namespace sennit::io::gguf_test
