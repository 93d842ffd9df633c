// Root Mean Square Layer Normalization (Zhang & Sennrich, arXiv:1910.07467), equation 4: y = w x / sqrt(mean x^2 + eps)
#include "norms/norm.h"
#include "ops/norms.h"

namespace sennit::norms {
namespace {

struct RmsNorm : Norm {
  struct Options {
    double epsilon = 1e-5;
    Fields fields() { return {{"epsilon", &epsilon, "added to the mean square", {.min = 0, .max = 1}}}; }
  };
  static Info info() { return {"Root mean square norm", "arXiv:1910.07467"}; }

  RmsNorm(const Dims& d, const Options& o, Rng) : options(o) {
    weight.init(Tensor::full({d.d_model}, 1));
    weight.decays = false;
  }
  Var forward(const Var& x) const override { return rmsnorm(x, weight, {.epsilon = static_cast<float>(options.epsilon)}); }
  naive::Matrix naive(const naive::Weights& w, const naive::Matrix& x) const override {
    return naive::rmsnorm(x, 1, options.epsilon, &w.at("weight"));
  }
  void visit(const ParameterVisitor& v) override { v("weight", weight); }

  Options options;
  Parameter weight;
};

}  // namespace

void register_rmsnorm(Registry<Norm>& r) { r.add<RmsNorm>("rmsnorm"); }

}  // namespace sennit::norms
