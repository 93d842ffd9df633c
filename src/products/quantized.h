#pragma once
#include "io/blocks.h"
#include "kernels/quantized.h"
#include "products/weight_form.h"

namespace sennit {

// A weight [out, in] that stays quantized in memory, packed once for reading in order: the bytes of its file for q8_0,
// q4_0, q4_1, q5_0 and q5_1 (8.5, 4.5, 5, 5.5 and 6 bits a number), 5 bits for q4_k, 6 for q5_k, 7 for q6_k. Scales are
// f16; the formats of 256 combine two levels of scales, which rounds each to 11 bits.
class QuantizedMatrix : public WeightForm {
 public:
  explicit QuantizedMatrix(const io::StoredTensor& weight);  // a matrix in a quantized format

  int64_t bytes() const override { return panels_.bytes(); }
  kernels::QuantizedLayout layout() const { return layout_; }
  const uint8_t* panels() const { return reinterpret_cast<const uint8_t*>(panels_.raw()); }  // see kernels/quantized.h
  void row(int64_t i, float* x) const override;
  void apply(const float* x, int64_t m, float* y, const float* bias, bool bf16) const override;

 private:
  int64_t blocks() const { return in() / kernels::kQuantizedColumns; }
  void pack_panel(const io::StoredTensor& weight, int64_t panel);
  kernels::QuantizedLayout layout_;
  Tensor panels_;
};

// y [m, out] = x [m, in] W^T + bias. Each row of x is rounded to 8 bits, every 32 numbers by a scale of their own. A
// row of y depends on its row of x and on W alone, to the bit: not on m, the number of threads, or the CPU's level.
void multiply(const float* x, int64_t m, const QuantizedMatrix& w, float* y, const float* bias = nullptr);
// The same with the numbers of x and W rounded to bf16, for many rows where such products are fast (AMX): W is unpacked
// on the way. A row of y depends on its row of x and on W alone at one CPU level.
void multiply_paired(const float* x, int64_t m, const QuantizedMatrix& w, float* y, const float* bias = nullptr);

}  // namespace sennit
