#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

inline constexpr int64_t kInt8Multiple = 64;  // rows of whole numbers are padded to a multiple of this

struct Int8Rows {
  // x [k] as scale * q: scale is the largest magnitude over 127, q [k padded with zeros to the multiple] lies between
  // -127 and 127, nearest to even. A largest magnitude up to 1e-30 counts as zero. A row with a number that is not
  // finite has a scale of NaN, and any q. All levels give the same bits.
  void (*round)(const float* x, int64_t k, int8_t* q, float* scale);
};

SENNIT_KERNEL_TABLE(Int8Rows, int8_rows)

}  // namespace sennit::kernels
