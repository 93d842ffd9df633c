#pragma once
#include <cstdint>

#include "products/precision.h"
#include "tensor/tensor.h"

namespace sennit {

// A matrix of [rows, cols] floats in someone else's memory: element (i, j) is data[i * stride + j], or
// data[j * stride + i] when transposed.
struct MatrixView {
  const float* data;
  int64_t rows, cols, stride;
  bool transposed = false;
};

struct ProductOptions {
  Precision precision = Precision::f32;
  bool accumulate = false;
  const float* bias = nullptr;  // [n], added to every row after the sums
};

// c[m, n] = (accumulate ? c : 0) + a[m, k] b[k, n] + bias. c must not overlap the factors. At one instruction-set level
// and precision a row of c depends on its row of a and on b alone, to the bit: not on m, on where the row stands, on
// the number of threads, or on whether b is packed. At bf16 the factors are rounded to nearest even.
void multiply(MatrixView a, MatrixView b, float* c, int64_t c_stride, const ProductOptions& options = {});

// A right factor [rows, cols] laid out for reading once in order: for weights, which are used many times.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  PackedMatrix(MatrixView b, Precision precision);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t bytes() const { return panels_.defined() ? panels_.bytes() : 0; }
  Precision precision() const { return precision_; }
  const float* panels() const { return reinterpret_cast<const float*>(panels_.raw()); }  // see kernels/gemm.h

 private:
  Tensor panels_;
  int64_t rows_ = 0, cols_ = 0;
  Precision precision_ = Precision::f32;
};

void multiply(MatrixView a, const PackedMatrix& b, float* c, int64_t c_stride, bool accumulate = false,
              const float* bias = nullptr);

}  // namespace sennit
