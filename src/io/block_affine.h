#pragma once
#include "io/blocks.h"

namespace sennit::io {

// Thirty-two numbers of a quantized row in the one form that all formats fit: scale q - minimum, one pair for each 16.
struct AffineBlock {
  uint8_t q[32];
  float scale[2], minimum[2];
};
// The n / 32 of a row; n is a multiple of the format's block.
void affine_blocks(BlockFormat format, const std::byte* blocks, int64_t n, AffineBlock* out);

}  // namespace sennit::io
