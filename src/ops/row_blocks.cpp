#include "ops/row_blocks.h"

#include "kernels/elementwise.h"
#include "ops/count.h"

namespace sennit {

void add_blocks(const Tensor& partial, Tensor& into) {
  for (int64_t i = 0; i < partial.rows(); ++i)
    kernels::elementwise().add(partial.data() + i * partial.row_size(), into.data(), into.data(), into.elements());
}

Tensor row_sum(const Tensor& x, const Tensor& factor) {
  const int64_t n = x.rows(), d = x.row_size();
  Tensor partial = Tensor::zeros({row_blocks(n), d}), sum = Tensor::zeros({d});
  count_flops(x.elements());
  each_row_block(n, [&](int64_t block, int64_t first, int64_t rows) {
    float* out = partial.data() + block * d;
    for (int64_t i = first; i < first + rows; ++i) {
      const float* row = x.data() + i * d;
      if (factor)
        kernels::elementwise().multiply_add(row, factor.data() + i * d, out, d);
      else
        kernels::elementwise().add(row, out, out, d);
    }
  });
  add_blocks(partial, sum);
  return sum;
}

}  // namespace sennit
