#include "train/losses.h"

namespace sennit::train {

double backward_all(const Var& loss, std::span<const Var> auxiliary, float share) {
  double sum = 0;
  std::vector<std::pair<Var, Tensor>> roots;
  if (loss.needs_grad()) roots.emplace_back(loss, Tensor::full({1}, share));
  for (const Var& extra : auxiliary) {
    sum += extra.value().data()[0];
    if (extra.needs_grad()) roots.emplace_back(extra, Tensor::full({1}, share));
  }
  backward(roots);
  return sum;
}

}  // namespace sennit::train
