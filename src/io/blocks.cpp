#include "io/blocks.h"

#include "base/error.h"
#include "base/parallel.h"
#include "io/block_codes.h"

namespace sennit::io {
namespace {

constexpr BlockLayout kLayouts[] = {{"f32", 1, 4, 0},       {"f16", 1, 2, 1},      {"bf16", 1, 2, 30},
                                    {"q8_0", 32, 34, 8},    {"q4_0", 32, 18, 2},   {"q4_1", 32, 20, 3},
                                    {"q5_0", 32, 22, 6},    {"q5_1", 32, 24, 7},   {"q4_k", 256, 144, 12},
                                    {"q5_k", 256, 176, 13}, {"q6_k", 256, 210, 14}};
constexpr BlockFormat kFormats[] = {BlockFormat::f32,  BlockFormat::f16,  BlockFormat::bf16, BlockFormat::q8_0,
                                    BlockFormat::q4_0, BlockFormat::q4_1, BlockFormat::q5_0, BlockFormat::q5_1,
                                    BlockFormat::q4_k, BlockFormat::q5_k, BlockFormat::q6_k};

const block_codes::Code& code_of(BlockFormat format) {
  using namespace block_codes;
  static constexpr const Code* kCodes[] = {&q8_0, &q4_0, &q4_1, &q5_0, &q5_1, &q4_k, &q5_k, &q6_k};
  return *kCodes[static_cast<int>(format) - static_cast<int>(BlockFormat::q8_0)];
}

template <class T>
void decode_floats(const std::byte* p, int64_t n, float* x) {
  for (int64_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, p + i * static_cast<int64_t>(sizeof value), sizeof value);
    x[i] = to_float(value);
  }
}

}  // namespace

const BlockLayout& layout_of(BlockFormat format) {
  return kLayouts[static_cast<int>(format)];
}
std::span<const BlockFormat> block_formats() {
  return kFormats;
}

std::optional<BlockFormat> parse_block_format(std::string_view name) {
  for (const BlockFormat f : kFormats)
    if (name == layout_of(f).name) return f;
  return std::nullopt;
}

std::optional<BlockFormat> block_format_of_id(uint32_t id) {
  for (const BlockFormat f : kFormats)
    if (id == layout_of(f).id) return f;
  return std::nullopt;
}

BlockFormat block_format_of(DType dtype) {
  SENNIT_CHECK(dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16, "{}", to_string(dtype));
  return *parse_block_format(to_string(dtype));
}

int64_t row_bytes(BlockFormat format, int64_t n) {
  const BlockLayout& layout = layout_of(format);
  SENNIT_CHECK(n % layout.numbers == 0, "{} numbers in blocks of {}", n, layout.numbers);
  return n / layout.numbers * layout.bytes;
}

void decode_row(BlockFormat format, const std::byte* blocks, int64_t n, float* x) {
  if (format == BlockFormat::f32) {
    if (n > 0) std::memcpy(x, blocks, n * sizeof(float));
    return;
  }
  if (format == BlockFormat::f16) return decode_floats<f16>(blocks, n, x);
  if (format == BlockFormat::bf16) return decode_floats<bf16>(blocks, n, x);
  const BlockLayout& layout = layout_of(format);
  const auto decode = code_of(format).decode;
  for (int64_t i = 0; i < n; i += layout.numbers, blocks += layout.bytes) decode(blocks, x + i);
}

void encode_row(BlockFormat format, const float* x, int64_t n, std::byte* blocks, const float* importance) {
  if (format == BlockFormat::f32) {
    if (n > 0) std::memcpy(blocks, x, n * sizeof(float));
    return;
  }
  if (!is_quantized(format)) {
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t bits = format == BlockFormat::f16 ? to_f16(x[i]).bits : to_bf16(x[i]).bits;
      std::memcpy(blocks + 2 * i, &bits, 2);
    }
    return;
  }
  const BlockLayout& layout = layout_of(format);
  const auto encode = code_of(format).encode;
  for (int64_t i = 0; i < n; i += layout.numbers, blocks += layout.bytes)
    encode(x + i, importance ? importance + i : nullptr, blocks);
}

StoredTensor stored(const Tensor& tensor) {
  auto owner = std::make_shared<Tensor>(tensor);
  const std::span bytes(owner->raw(), static_cast<size_t>(tensor.bytes()));
  return {block_format_of(tensor.dtype()), tensor.shape(), bytes, std::move(owner)};
}

FreshTensor fresh(BlockFormat format, Shape shape) {
  StoredTensor t{format, shape, {}, {}};
  auto memory = std::make_shared<Tensor>(Shape{t.row_count() * row_bytes(format, t.row_size())}, DType::u8);
  std::byte* bytes = memory->raw();
  t.bytes = {bytes, static_cast<size_t>(memory->bytes())};
  t.owner = std::move(memory);
  return {std::move(t), bytes};
}

Tensor decoded(const StoredTensor& t) {
  Tensor x(t.shape);
  const int64_t n = t.row_size(), bytes = row_bytes(t.format, n);
  float* to = x.data();
  parallel_for(t.row_count(), std::max<int64_t>(1, 65536 / std::max<int64_t>(1, n)), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) decode_row(t.format, t.bytes.data() + i * bytes, n, to + i * n);
  });
  return x;
}

StoredTensor encoded(const StoredTensor& t, BlockFormat format, const float* importance) {
  if (format == t.format) return t;
  const Tensor x = decoded(t);
  const FreshTensor out = fresh(format, t.shape);
  const int64_t n = t.row_size(), bytes = row_bytes(format, n);
  parallel_for(t.row_count(), std::max<int64_t>(1, 4096 / std::max<int64_t>(1, n)), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) encode_row(format, x.data() + i * n, n, out.bytes + i * bytes, importance);
  });
  return out.tensor;
}

}  // namespace sennit::io
