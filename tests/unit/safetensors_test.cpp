#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "io/json_file.h"
#include "support/temp_folder.h"

namespace sennit::io::safetensors_test {

std::string file_of(const std::string& header, const std::string& data) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file)), "t.safetensors");
}

std::string refusal(const std::string& header, size_t data_bytes = 0) {
  return error_of([&] { parse(file_of(header, std::string(data_bytes, 'd'))); });
}

std::vector<NamedTensor> example() {
  std::vector<NamedTensor> tensors;
  Rng rng(1);
  const auto add = [&](const char* name, Shape shape, DType dtype) {
    Tensor t(shape, dtype);
    for (int64_t i = 0; i < t.bytes(); ++i) t.raw()[i] = static_cast<std::byte>(rng.bits());
    tensors.push_back({name, t});
  };
  add("byte", {3}, DType::u8);
  add("w.f32", {2, 3}, DType::f32);
  add("scalar", {}, DType::f64);
  add("none", {0, 4}, DType::bf16);
  add("half", {5}, DType::f16);
  add("\xc3\xa9", {1, 2, 1, 1, 1, 2}, DType::i64);
  add("flags", {3}, DType::boolean);
  add("eight", {2}, DType::f8_e4m3);
  return tensors;
}

void expect_same(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.dtype(), b.dtype());
  ASSERT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0);
}

TEST(Safetensors, GoesRoundForEveryDtype) {
  TempFolder dir;
  const std::string path = dir / "m.safetensors";
  write_safetensors(path, example(), {{"note", "x\"y"}});
  SafetensorsFile file(path);
  EXPECT_EQ(file.entries().size(), 8u);
  EXPECT_EQ(file.metadata().at("note"), "x\"y");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_TRUE(file.verify());
  for (const auto& [name, tensor] : example()) expect_same(file.tensor(name), tensor);
}

TEST(Safetensors, BytesDoNotDependOnTheOrderAndAlign) {
  TempFolder dir;
  auto tensors = example();
  write_safetensors(dir / "a", tensors);
  std::reverse(tensors.begin(), tensors.end());
  write_safetensors(dir / "b", tensors);
  const std::string bytes = slurp(dir / "a");
  EXPECT_EQ(bytes, slurp(dir / "b"));
  uint64_t header;
  std::memcpy(&header, bytes.data(), 8);
  EXPECT_EQ(header % 8, 0u);
  EXPECT_EQ(bytes[8], '{');
}

TEST(Safetensors, TensorsOutliveTheFileAndShareItsPages) {
  TempFolder dir;
  write_safetensors(dir / "m", example());
  Tensor kept;
  {
    SafetensorsFile file(dir / "m");
    kept = file.tensor("w.f32");
    EXPECT_EQ(kept.raw(), file.bytes(*file.find("w.f32")).data()) << "copied";
    EXPECT_EQ(kept.raw(), file.tensor("w.f32").raw());
  }
  expect_same(kept, example()[1].tensor);
}

TEST(Safetensors, MisalignedTensorsAreCopied) {
  TempFolder dir;
  spill(dir / "m",
        file_of(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} )", std::string("\0\0\x80\x3f", 4)));
  const Tensor x = SafetensorsFile(dir / "m").tensor("x");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(x.raw()) % 4, 0u);
  EXPECT_EQ(x.data()[0], 1.0f);
}

TEST(Safetensors, FormatsWithoutATensorTypeAreListed) {
  TempFolder dir;
  spill(
      dir / "m",
      file_of(
          R"({"c":{"dtype":"C64","shape":[1],"data_offsets":[0,8]},"q":{"dtype":"F4","shape":[3,2],"data_offsets":[8,11]}})",
          "12345678abc"));
  SafetensorsFile file(dir / "m");
  EXPECT_EQ(file.bytes(*file.find("q")).size(), 3u);
  EXPECT_NE(error_of([&] { file.tensor("c"); }).find("C64"), std::string::npos);
  EXPECT_NE(error_of([&] { file.tensor("zz"); }).find("`zz`"), std::string::npos);
  EXPECT_FALSE(file.verify());
}

TEST(Safetensors, EachRuleHasItsError) {
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  const std::string f32 = "\"F32\"";
  struct Case {
    std::string header;
    size_t data;
    const char* says;
  };
  for (
      const Case& c : std::vector<Case>{
          {"", 0, "begins with `{`"},
          {" {}", 0, "begins with `{`"},
          {"[]", 0, "begins with `{`"},
          {"{}x", 0, "nothing after the value"},
          {"{}", 4, "cover all 4 bytes of data, got 0"},
          {R"({"w":3})", 0, "an object with dtype"},
          {R"({"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
           4, "`w` again"},
          {R"({"w":{"dtype":"F32","shape":[]}})", 0, "expected `data_offsets`"},
          {R"({"w":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}})", 4, "unknown key `x`"},
          {R"({"__metadata__":[]})", 0, "__metadata__ to be an object"},
          {R"({"__metadata__":{"a":1}})", 0, "text for `a`"},
          {entry("3", "[]", "[0,4]"), 4, "dtype to be text"},
          {entry("\"F33\"", "[]", "[0,4]"), 4, "got `F33`"},
          {entry(f32, "1", "[0,4]"), 4, "shape to be a list"},
          {entry(f32, "[-1]", "[0,4]"), 4, "whole numbers"},
          {entry(f32, "[1.0]", "[0,4]"), 4, "whole numbers"},
          {entry(f32, "[18446744073709551615]", "[0,4]"), 4, "whole numbers"},
          {entry(f32, "[4294967296,4294967296]", "[0,4]"), 4, "overflows"},
          {entry(f32, "[0,9223372036854775807,8]", "[0,0]"), 0, "overflows"},
          {entry(f32, "[2]", "[0,4]"), 4, "8 bytes for its shape"},
          {entry(f32, "[1]", "[0,4,8]"), 8, "two numbers"},
          {entry(f32, "[1]", "[4,0]"), 4, "inside the 4 bytes"},
          {entry(f32, "[1]", "[4,8]"), 4, "inside the 4 bytes"},
          {entry(f32, "[1]", "[4,8]"), 8, "from byte 0 on"},
          {entry(f32, "[1]", "[0,4]"), 8, "cover all 8 bytes"},
          {entry("\"F4\"", "[3]", "[0,2]"), 2, "whole bytes"},
          {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
           4, "tensor `b`"},
          {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
           4, "from byte 1 on"},
          {R"({"a":)" + std::string(100000, '['), 0, "levels of nesting"},
      }) {
    const std::string text = refusal(c.header, c.data);
    EXPECT_NE(text.find(c.says), std::string::npos) << c.header.substr(0, 100) << "\n" << text;
    EXPECT_NE(text.find("t.safetensors"), std::string::npos) << text;
  }
  for (const std::string& file :
       {std::string(), std::string("1234567"), std::string(8, '\xff'), file_of("{}", "").substr(0, 9)})
    EXPECT_THROW(parse(file), Error);
  EXPECT_NO_THROW(parse(file_of("{}   ", "")));
  EXPECT_NO_THROW(parse(file_of(entry(f32, "[0,4096,8]", "[0,0]"), "")));
}

TEST(Safetensors, EveryTruncationIsRefusedAndEveryFlipInTheDataIsSeen) {
  TempFolder dir;
  write_safetensors(dir / "m", example());
  const std::string good = slurp(dir / "m");
  for (size_t n = 0; n < good.size(); ++n) EXPECT_THROW(parse(good.substr(0, n)), Error) << n;
  const auto data_begin = static_cast<size_t>(parse(good).data_begin);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    spill(dir / "bad", bad);
    bool refused = false;
    try {
      refused = !SafetensorsFile(dir / "bad").verify();
    } catch (const Error&) {
      refused = true;
    }
    EXPECT_TRUE(refused || i < data_begin) << "byte " << i;
  }
}

TEST(Safetensors, ShardsAndIndex) {
  TempFolder dir;
  write_safetensors_folder(dir.path(), example());
  EXPECT_EQ(listing(dir.path()), std::vector<std::string>{"model.safetensors"});
  std::filesystem::remove(dir / "model.safetensors");
  write_safetensors_folder(dir.path(), example(), 30);
  const Safetensors model(dir.path());
  EXPECT_GT(model.files().size(), 2u);
  EXPECT_TRUE(model.verify());
  EXPECT_EQ(model.names().size(), 8u);
  for (const auto& [name, tensor] : example()) expect_same(model.tensor(name), tensor);
  EXPECT_NE(error_of([&] { model.tensor("w.f33"); }).find("the nearest is `w.f32`"), std::string::npos);

  const std::string index = dir / "model.safetensors.index.json";
  const auto with = [&](const std::string& text) {
    spill(index, text);
    return error_of([&] { Safetensors{dir.path()}; });
  };
  EXPECT_NE(with("{}").find("weight_map"), std::string::npos);
  EXPECT_NE(with(R"({"weight_map":{"a":"../x"}})").find("beside it"), std::string::npos);
  EXPECT_NE(with(R"({"weight_map":{"a":".."}})").find("beside it"), std::string::npos);
  EXPECT_NE(with(R"({"weight_map":{"a":"/etc/passwd"}})").find("beside it"), std::string::npos);
  EXPECT_NE(with(R"({"weight_map":{"a":"gone.safetensors"}})").find("No such file"), std::string::npos);
  EXPECT_NE(with(R"({"weight_map":{"a":"model-00001-of-00004.safetensors"}})").find("no such tensor"),
            std::string::npos);
  TempFolder empty;
  EXPECT_NE(error_of([&] { Safetensors{empty.path()}; }).find("neither"), std::string::npos);
}

TEST(Safetensors, BadNamesAreRefused) {
  TempFolder dir;
  const Tensor t = Tensor::zeros({1});
  for (const auto& tensors : {std::vector<NamedTensor>{{"a", t}, {"a", t}}, {{"__metadata__", t}}, {{"\xff", t}}}) {
    EXPECT_THROW(write_safetensors(dir / "m", tensors), Error);
    EXPECT_TRUE(listing(dir.path()).empty());
  }
}

}  // namespace sennit::io::safetensors_test
