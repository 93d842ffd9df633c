#pragma once
#include <cstdint>

#include "kernels/level.h"
#include "kernels/sum.h"

namespace sennit::kernels {

// Norms of the rows of x [rows, d], contiguous. A row's result depends on that row alone. y may be x. The statistics
// (one per row: the mean and the reciprocal of the divisor) are what the gradients need; nullptr when not wanted.
// Gradients go to dx [rows, d] and are added into dw, db [d] (nullptr when not wanted); w == nullptr stands for ones, b for
// zeros.
struct Norm {
  // Zhang & Sennrich, arXiv:1910.07467, eq. 4: y = w x / sqrt(mean(x^2) + eps)
  void (*rmsnorm)(const float* x, const float* w, int64_t rows, int64_t d, float eps, float* y, float* inverse);
  void (*rmsnorm_gradient)(const float* x, const float* w, const float* inverse, const float* dy, int64_t rows,
                           int64_t d, Sum dx, float* dw);

  // Ba et al., arXiv:1607.06450, eq. 4: y = w (x - mean) / sqrt(var + eps) + b
  void (*layernorm)(const float* x, const float* w, const float* b, int64_t rows, int64_t d, float eps, float* y,
                    float* mean, float* inverse);
  void (*layernorm_gradient)(const float* x, const float* w, const float* mean, const float* inverse, const float* dy,
                             int64_t rows, int64_t d, Sum dx, float* dw, float* db);

  // y = x / sqrt(sum(x^2) + eps)
  void (*l2norm)(const float* x, int64_t rows, int64_t d, float eps, float* y, float* inverse);
  void (*l2norm_gradient)(const float* x, const float* inverse, const float* dy, int64_t rows, int64_t d, Sum dx);
};

SENNIT_KERNEL_TABLE(Norm, norm)

}  // namespace sennit::kernels
