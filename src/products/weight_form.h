#pragma once
#include <cstdint>

namespace sennit {

// A weight W [out, in] kept in fewer bits than floats have: in blocks of 32 numbers (products/quantized.h), or in rows
// of whole numbers (products/int8.h).
class WeightForm {
 public:
  WeightForm(int64_t out, int64_t in) : out_(out), in_(in) {}
  virtual ~WeightForm() = default;

  int64_t out() const { return out_; }
  int64_t in() const { return in_; }
  virtual int64_t bytes() const = 0;
  virtual void row(int64_t i, float* x) const = 0;  // [in]
  // y [m, out] = x [m, in] W^T + bias [out], which may be null. A row of y depends on its row of x and on W alone;
  // where `bf16` allows both to be rounded to that, a form may do so from some m on.
  virtual void apply(const float* x, int64_t m, float* y, const float* bias, bool bf16) const = 0;

 private:
  int64_t out_, in_;
};

}  // namespace sennit
