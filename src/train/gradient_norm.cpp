#include "train/gradient_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/parallel.h"
#include "kernels/elementwise.h"

namespace sennit::train {
namespace {

// In runs of fixed length, added in order: the threads change nothing.
double sum_squares(const Tensor& g) {
  constexpr int64_t kRun = 1 << 16;
  const int64_t runs = (g.elements() + kRun - 1) / kRun;
  std::vector<double> partial(runs);
  parallel_for(runs, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) partial[i] = kernels::elementwise().sum_squares(g.data() + i * kRun, std::min(kRun, g.elements() - i * kRun));
  });
  double total = 0;
  for (const double p : partial) total += p;
  return total;
}

}  // namespace

double gradient_norm(std::span<const NamedParameter> parameters) {
  double squares = 0;
  for (const NamedParameter& p : parameters)
    if (const Tensor& g = p.parameter->var.grad()) squares += sum_squares(g);
  return std::sqrt(squares);
}

}  // namespace sennit::train
