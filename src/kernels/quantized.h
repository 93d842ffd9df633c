#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Products with a weight W [n, k] kept as small integers: y = x W^T. W lies in panels of 16 rows, a panel as its blocks
// of 32 columns in order, a block as
//   codes    [8][16][4] bytes: group g of four columns, row, column; or, of 4 to 6 bits, [4][16][4] bytes whose low
//            halves are the low halves of groups 0 to 3 and whose high halves are those of groups 4 to 7
//   above    [bits - 4][16][4] bytes of codes of 5 and 6 bits: what is above their low halves, from bit 0 of byte 0 on
//            those of groups 0, 1, ...
//   scales   [parts][16] f16; parts = 2: one for each 16 columns
//   minima   [parts][16] f16: w = scale q - minimum; left out where one code stands for zero: w = scale (q - zero)
// Rows of x are rounded to 8 bits, each block of 32 by its own scale. Sums within a block are whole numbers; blocks are
// added in order, so that an element of y depends on its row of x and of W alone, to the bit, at every level alike.
inline constexpr int64_t kQuantizedRows = 16;
inline constexpr int64_t kQuantizedColumns = 32;
// As many panels are read side by side, at most, where x is a single row: tasks of a multiple of it waste nothing.
inline constexpr int64_t kQuantizedPanels = 4;

struct QuantizedLayout {
  int bits;      // 4, 5, 6 or 8
  int parts;     // 1 or 2
  int zero = 0;  // the code of zero; 0: minima are stored
  constexpr bool minima() const { return zero == 0; }
  constexpr int64_t block_bytes() const { return 64 * bits + 32 * parts * (minima() ? 2 : 1); }
};

// 32 numbers of a row of x: scale * q.
struct RoundedBlock {
  int8_t q[kQuantizedColumns];
  float scale;
  int32_t sums[2];  // of 16 numbers each
};

struct QuantizedTask {
  QuantizedLayout layout;
  const uint8_t* panels;  // of the first row
  int64_t n, blocks;      // rows of W, blocks of a row
  const RoundedBlock* x;  // [m, blocks]
  int64_t m;
  float* y;  // [m, n]
  int64_t y_stride;
  const float* bias;  // [n] or null
};

struct Quantized {
  // k numbers, zeros up to the end of the last block; they must be finite.
  void (*round_row)(const float* x, int64_t k, RoundedBlock* rounded);
  void (*multiply)(const QuantizedTask& task);
  // A panel of W rounded to bf16, as 16 neighbouring columns of a panel of gemm.h's b: unit [u][r] is columns 2u and
  // 2u + 1 of row r, at units[u * kPanelColumns + r].
  void (*unpack)(QuantizedLayout layout, const uint8_t* panel, int64_t blocks, float* units);
};

SENNIT_KERNEL_TABLE(Quantized, quantized)

}  // namespace sennit::kernels
