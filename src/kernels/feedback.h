#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// c [m, n] = (accumulate ? c : 0) + a [m, k] b [k, n], for the few rows of a that recurrent cells feed back at a step.
// b lies as it is (b_panel = columns), or packed in panels of `columns` columns, [k][columns] each, that follow each
// other (b_row = columns, b_panel = k columns): then a step reads memory in order.
struct FeedProduct {
  const float* a;
  int64_t a_stride, m, k;
  const float* b;
  int64_t b_row, b_panel;  // distance of rows, and of runs of `columns` columns
  int64_t n;
  float* c;
  int64_t c_stride;
  bool accumulate;
};

// An element of c is one chain of fma over k in order, the same whatever m and n, wherever it stands and however b
// lies.
struct Feedback {
  int64_t columns;  // of a panel
  int64_t (*packed_floats)(int64_t k, int64_t n);
  // Packs b [k, n], rows `stride` apart, or its transpose b [n, k]. Columns beyond n are zeros.
  void (*pack)(const float* b, int64_t stride, int64_t k, int64_t n, float* panels);
  void (*pack_transposed)(const float* b, int64_t stride, int64_t k, int64_t n, float* panels);
  void (*multiply)(const FeedProduct& product);
};

SENNIT_KERNEL_TABLE(Feedback, feedback)

}  // namespace sennit::kernels
