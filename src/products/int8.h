#pragma once
#include "io/blocks.h"
#include "products/weight_form.h"

namespace sennit {

// A weight [out, in] of whole numbers from -127 to 127 with one scale for each row ("W8A8": rows of x are rounded in
// the same way when they come), packed once for reading in order: 8 bits a number and 8 bytes a row. A row's scale is
// its largest magnitude over 127.
class Int8Matrix : public WeightForm {
 public:
  static constexpr int64_t kMostColumns = int64_t{1} << 17;  // sums of more products need not fit 32 bits

  // Of a matrix in any format. Throws Error for more columns than that.
  explicit Int8Matrix(const io::StoredTensor& weight);

  // Of such a matrix, but for what fills its last panel.
  static int64_t bytes_of(int64_t out, int64_t in) { return out * (in + 8); }
  int64_t bytes() const override { return panels_.bytes() + scales_.bytes() + sums_.bytes(); }
  void row(int64_t i, float* x) const override;
  void apply(const float* x, int64_t m, float* y, const float* bias, bool bf16) const override;

  int64_t depth() const;  // of a panel, in units of four columns
  const float* panels() const { return reinterpret_cast<const float*>(panels_.raw()); }  // of b; see kernels/gemm.h
  const float* scales() const { return scales_.data(); }                                 // [out]
  const int32_t* sums() const { return reinterpret_cast<const int32_t*>(sums_.raw()); }  // [out]

 private:
  void pack_panel(const io::StoredTensor& weight, int64_t panel);
  Tensor panels_, scales_, sums_;
};

// y [m, out] = x [m, in] W^T + bias: each row of x is rounded to 8 bits by its largest magnitude, sums are whole and
// exact, and y = sum * (scale of W) * (scale of x) + bias, rounded after each step. A row of y depends on its row of x
// and on W alone, to the bit: not on m, the number of threads, or the CPU's level. A row of x (or W) with a number that
// is not finite gives NaN, one whose largest magnitude is at most 1e-30 counts as zeros.
void multiply(const float* x, int64_t m, const Int8Matrix& w, float* y, const float* bias = nullptr);

}  // namespace sennit
