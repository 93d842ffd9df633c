#include "ops/maps.h"

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "ops/arithmetic.h"
#include "ops/count.h"

namespace sennit {
namespace {

using kernels::Elementwise;
constexpr int64_t kMapGrain = 1 << 13;

Tensor apply(const Tensor& x, Elementwise::Map map) {
  Tensor y(x.shape());
  count_flops(x.elements());
  parallel_for(x.elements(), kMapGrain, [&](int64_t b, int64_t e) { map(x.data() + b, y.data() + b, e - b); });
  return y;
}

Var map(const Var& x, Elementwise::Map forward, Elementwise::Gradient Elementwise::*gradient) {
  return record(apply(x.value(), forward), {x}, [x = x.value(), gradient](std::span<const Tensor> dy, Gradients& into) {
    const kernels::Sum dx = into.first_sum();
    count_flops(x.elements());
    const auto d = kernels::elementwise().*gradient;
    parallel_for(x.elements(), kMapGrain,
                 [&](int64_t b, int64_t e) { d(x.data() + b, dy[0].data() + b, dx.from(b), e - b); });
  });
}

}  // namespace

Var exp(const Var& x) {
  Tensor y = apply(x.value(), kernels::elementwise().exp);
  return record(y, {x}, [y](std::span<const Tensor> dy, Gradients& into) {
    const kernels::Sum dx = into.first_sum();
    count_flops(2 * y.elements());
    const auto d = dx.holds ? kernels::elementwise().multiply_add : kernels::elementwise().multiply;
    parallel_for(y.elements(), kMapGrain,
                 [&](int64_t b, int64_t e) { d(y.data() + b, dy[0].data() + b, dx.at + b, e - b); });
  });
}

Var log(const Var& x) {
  return record(apply(x.value(), kernels::elementwise().log), {x}, [x = x.value()](std::span<const Tensor> dy, Gradients& into) {
    Tensor& dx = into.sum(0);
    count_flops(2 * x.elements());
    for (int64_t i = 0; i < x.elements(); ++i) dx.data()[i] += dy[0].data()[i] / x.data()[i];
  });
}

Var inverse(const Var& x) { return exp(scale(log(x), -1)); }

Var sigmoid(const Var& x) { return map(x, kernels::elementwise().sigmoid, &Elementwise::sigmoid_gradient); }
Var silu(const Var& x) { return map(x, kernels::elementwise().silu, &Elementwise::silu_gradient); }
Var gelu(const Var& x) { return map(x, kernels::elementwise().gelu, &Elementwise::gelu_gradient); }
Var gelu_erf(const Var& x) { return map(x, kernels::elementwise().gelu_erf, &Elementwise::gelu_erf_gradient); }
Var relu(const Var& x) { return map(x, kernels::elementwise().relu, &Elementwise::relu_gradient); }
Var relu2(const Var& x) { return map(x, kernels::elementwise().relu2, &Elementwise::relu2_gradient); }
Var tanh(const Var& x) { return map(x, kernels::elementwise().tanh, &Elementwise::tanh_gradient); }
Var softplus(const Var& x) { return map(x, kernels::elementwise().softplus, &Elementwise::softplus_gradient); }
Var sine(const Var& x) { return map(x, kernels::elementwise().sine, &Elementwise::sine_gradient); }
Var complement(const Var& x) { return map(x, kernels::elementwise().complement, &Elementwise::complement_gradient); }
Var log_sigmoid(const Var& x) { return scale(softplus(scale(x, -1)), -1); }

Var swiglu(const Var& gate, const Var& up) {
  SENNIT_CHECK(gate.shape() == up.shape(), "swiglu: {} and {}", gate.shape().str(), up.shape().str());
  Tensor y(gate.shape());
  const auto& kernel = kernels::elementwise();
  count_flops(2 * y.elements());
  parallel_for(y.elements(), kMapGrain, [&](int64_t b, int64_t e) {
    kernel.swiglu(gate.value().data() + b, up.value().data() + b, y.data() + b, e - b);
  });
  return record(std::move(y), {gate, up}, [g = gate.value(), u = up.value()](std::span<const Tensor> dy, Gradients& into) {
    kernels::Sum d[2];
    into.sums(d);
    count_flops(5 * g.elements());
    parallel_for(g.elements(), kMapGrain, [&](int64_t b, int64_t e) {
      kernels::elementwise().swiglu_gradient(g.data() + b, u.data() + b, dy[0].data() + b, d[0].from(b), d[1].from(b), e - b);
    });
  });
}

}  // namespace sennit
