// Layer Normalization (Ba et al., arXiv:1607.06450), equation 4: y = w (x - mean) / sqrt(var + eps) + b
#include <cmath>

#include "norms/norm.h"
#include "ops/norms.h"

namespace sennit::norms {
namespace {

struct LayerNorm : Norm {
  struct Options {
    double epsilon = 1e-5;
    bool bias = true;
    Fields fields() {
      return {{"epsilon", &epsilon, "added to the variance", {.min = 0, .max = 1}}, {"bias", &bias, "learn a shift"}};
    }
  };
  static Info info() { return {"Layer norm", "arXiv:1607.06450"}; }

  LayerNorm(const Dims& d, const Options& o, Rng) : options(o) {
    weight.init(Tensor::full({d.d_model}, 1));
    weight.decays = false;
    if (o.bias) {
      bias.init(Tensor::zeros({d.d_model}));
      bias.decays = false;
    }
  }
  Var forward(const Var& x) const override {
    return layernorm(x, weight, bias.var, {.epsilon = static_cast<float>(options.epsilon)});
  }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override {
    naive::Matrix y = x;
    const double d = static_cast<double>(x.cols);
    for (int64_t i = 0; i < x.rows; ++i) {
      double mean = 0, variance = 0;
      for (int64_t j = 0; j < x.cols; ++j) mean += x(i, j) / d;
      for (int64_t j = 0; j < x.cols; ++j) variance += (x(i, j) - mean) * (x(i, j) - mean) / d;
      for (int64_t j = 0; j < x.cols; ++j)
        y(i, j) = (x(i, j) - mean) / std::sqrt(variance + options.epsilon) * w.at("weight").a[j] + (options.bias ? w.at("bias").a[j] : 0);
    }
    return y;
  }
  void visit(const ParameterVisitor& v) override {
    v("weight", weight);
    v("bias", bias);
  }

  Options options;
  Parameter weight, bias;
};

}  // namespace

void register_layernorm(Registry<Norm>& r) { r.add<LayerNorm>("layernorm"); }

}  // namespace sennit::norms
