#include "nn/short_conv.h"

#include <cmath>

#include "nn/init.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit {

ShortConv::ShortConv(int64_t channels, int64_t width, bool with_bias, Rng rng) {
  const double bound = 1 / std::sqrt(static_cast<double>(width));
  weight.init(uniform_init({channels, width}, -bound, bound, rng.fork("weight")));
  weight.decays = false;
  if (with_bias) {
    bias.init(Tensor::zeros({channels}));
    bias.decays = false;
  }
}

Var ShortConv::operator()(const Var& x, const Batch& batch, size_t field) {
  return silu(short_conv(x, weight, bias.var, batch, field));
}

void ShortConv::visit(const ParameterVisitor& v) {
  v("weight", weight);
  v("bias", bias);
}

StateField ShortConv::state(std::string name) const {
  return {std::move(name), {weight.value().row_size() - 1, weight.value().rows()}};
}

}  // namespace sennit
