#pragma once
// Factors of small products as panels of bf16 pairs (gemm.h); for kernels only (see simd.h).
#include "kernels/gemm.h"
#include "kernels/panels.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr float kPowersInE = 1.44269504088896341f;  // log2 e

void fill(float* x, int64_t n, float with) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(x + i, set(with), k); });
}

SENNIT_INLINE int64_t depth_of(int64_t k) {
  return paired_depth(k, kPairedMultiple);
}
SENNIT_INLINE int64_t whole_panels(int64_t n) {
  return (n + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
}
// Floats of a right factor of k by n in panels; a left factor of n by k takes no more.
SENNIT_INLINE int64_t panel_floats(int64_t k, int64_t n) {
  return whole_panels(n) * depth_of(k);
}

// The place of unit u, column i of a right factor whose panels have `depth` units.
SENNIT_INLINE float* unit_at(float* panels, int64_t depth, int64_t u, int64_t i) {
  return panels + i / kPanelColumns * kPanelColumns * depth + u * kPanelColumns + i % kPanelColumns;
}

// A right factor: element (p, i) is x[i * stride + p], or x[p * stride + i] when k_major; zeros up to `columns`.
void pack_columns(const PanelKernels& panels, const float* x, int64_t stride, bool k_major, int64_t n, int64_t columns,
                  int64_t k, float* out) {
  for (int64_t i = 0; i < columns; i += kPanelColumns) {
    const int64_t width = smaller(kPanelColumns, n - i);
    panels.pack_b(x + smaller(i, n) * (k_major ? 1 : stride), stride, k_major, width > 0 ? width : 0, k,
                  out + i * depth_of(k));
  }
}
// A left factor: element (i, p) is x[i * stride + p], or x[p * stride + i] when k_major.
void pack_rows(const PanelKernels& panels, const float* x, int64_t stride, bool k_major, int64_t rows, int64_t k,
               float* out) {
  const int64_t height = panels.panel_rows(rows);
  for (int64_t i = 0; i < rows; i += height)
    panels.pack_a(x + i * (k_major ? 1 : stride), stride, k_major, smaller(height, rows - i), k, out + i * depth_of(k));
}
// c[rows, columns] (=|+=) a b
void multiply_packed(const PanelKernels& panels, const float* a, const float* b, float* c, int64_t c_stride,
                     int64_t rows, int64_t columns, int64_t k, bool accumulate) {
  panels.multiply({.a = a,
                   .b = b,
                   .m = rows,
                   .n = columns,
                   .a_rows = panels.panel_rows(rows),
                   .depth = depth_of(k),
                   .c = c,
                   .c_stride = c_stride,
                   .accumulate = accumulate,
                   .bias = nullptr});
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
