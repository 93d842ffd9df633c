#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "tensor/tensor.h"

// How files store the numbers of a row: as floats, or as blocks of small integers with a scale. The layouts are ggml's
// (ggml-common.h), little-endian, to the byte.
namespace sennit::io {

enum class BlockFormat : uint8_t { f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k };

struct BlockLayout {
  const char* name;  // "q4_k"
  int64_t numbers;   // in a block
  int64_t bytes;     // of a block
  uint32_t id;       // GGUF's number for it
};
const BlockLayout& layout_of(BlockFormat format);
std::span<const BlockFormat> block_formats();
std::optional<BlockFormat> parse_block_format(std::string_view name);
std::optional<BlockFormat> block_format_of_id(uint32_t id);
inline bool is_quantized(BlockFormat format) {
  return format > BlockFormat::bf16;
}
BlockFormat block_format_of(DType dtype);  // f32, f16 or bf16; any other is a broken invariant

// The bytes of n numbers; n must be a multiple of the block.
int64_t row_bytes(BlockFormat format, int64_t n);
void decode_row(BlockFormat format, const std::byte* blocks, int64_t n, float* x);
// Floats round to nearest even. Quantized formats look for the scale (and minimum) with the least squared error; when
// `importance` is given, number i counts importance[i] times. Numbers must be finite. Other readers decode the result
// to the same values as decode_row.
void encode_row(BlockFormat format, const float* x, int64_t n, std::byte* blocks, const float* importance = nullptr);

// A tensor as a file holds it, rows of blocks along the last dimension. Copies share the bytes.
struct StoredTensor {
  BlockFormat format = BlockFormat::f32;
  Shape shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;  // keeps the bytes

  int64_t row_size() const { return shape.rank() ? shape[-1] : 1; }
  int64_t row_count() const { return row_size() ? shape.elements() / row_size() : 0; }
};

// The bytes of a float tensor, shared.
StoredTensor stored(const Tensor& tensor);
// As f32 numbers, rows spread over threads.
Tensor decoded(const StoredTensor& tensor);
// Through f32 where the formats differ. The row size must be a multiple of the format's block.
StoredTensor encoded(const StoredTensor& tensor, BlockFormat format, const float* importance = nullptr);
// New memory for a tensor of this format and shape, to be filled.
struct FreshTensor {
  StoredTensor tensor;
  std::byte* bytes;
};
FreshTensor fresh(BlockFormat format, Shape shape);

}  // namespace sennit::io
