#pragma once
// Sums over rows go by blocks of rows, whose borders do not depend on the threads, and then over blocks in order.
#include <algorithm>

#include "base/parallel.h"
#include "tensor/tensor.h"

namespace sennit {

inline constexpr int64_t kBlockRows = 64;

inline int64_t row_blocks(int64_t rows) {
  return (rows + kBlockRows - 1) / kBlockRows;
}

template <class Body>  // body(block, first row, rows)
void each_row_block(int64_t rows, Body&& body) {
  parallel_for(row_blocks(rows), 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) body(i, i * kBlockRows, std::min(kBlockRows, rows - i * kBlockRows));
  });
}

// into [D] += the rows of partial [blocks, D]
void add_blocks(const Tensor& partial, Tensor& into);

// The sum [D] of the rows of x [N, D], times `factor` [N, D] when given.
Tensor row_sum(const Tensor& x, const Tensor& factor = {});

}  // namespace sennit
