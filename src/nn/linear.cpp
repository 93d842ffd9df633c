#include "nn/linear.h"

#include <cmath>

#include "base/error.h"
#include "nn/init.h"
#include "ops/count.h"
#include "ops/products.h"
#include "products/weight_form.h"

namespace sennit {

Linear::Linear(int64_t in, int64_t out, Rng rng, Init init) : in_(in), out_(out) {
  const double deviation = init.deviation < 0 ? init.scale / std::sqrt(static_cast<double>(in)) : init.deviation;
  weight.init(normal_init({out, in}, deviation, rng.fork("weight")));
  weight.quantizable = true;
  if (init.bias) {
    bias.init(Tensor::zeros({out}));
    bias.decays = false;
  }
}

void Linear::visit(const ParameterVisitor& v) {
  v("weight", weight);
  v("bias", bias);
}

Var Linear::operator()(const Var& x, const Context& context) {
  if (weight.quantized) {
    SENNIT_CHECK(x.columns() == in(), "linear: {} into [{}, {}]", x.shape().str(), out(), in());
    if (recording() && x.needs_grad()) fail({"linear", "weights of floats to train", "quantized ones"});
    Tensor y({x.rows(), out()});
    count_flops(2 * x.rows() * in() * out());
    weight.quantized->apply(x.value().data(), x.rows(), y.data(), bias.var ? bias.value().data() : nullptr,
                            wants_pairs(context));
    return Var(std::move(y));
  }
  if (recording() || context.training) return linear(x, weight, bias.var, context.precision);
  if (packed_version_ != weight.version || packed_.precision() != context.precision) {
    packed_ = PackedMatrix({weight.value().data(), in(), out(), in(), true}, context.precision);
    packed_version_ = weight.version;
  }
  SENNIT_CHECK(x.columns() == in(), "linear: {} into {}", x.shape().str(), weight.value().shape().str());
  Tensor y({x.rows(), out()});
  count_flops(2 * x.rows() * in() * out());
  multiply({x.value().data(), x.rows(), in(), in(), false}, packed_, y.data(), out(), false, bias.var ? bias.value().data() : nullptr);
  return Var(std::move(y));
}

}  // namespace sennit
