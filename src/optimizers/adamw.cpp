// Decoupled Weight Decay Regularization (Loshchilov & Hutter, arXiv:1711.05101), algorithm 2:
//   m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= rate (m' / (sqrt(v') + eps) + decay p)
#include <cmath>
#include <map>

#include "base/parallel.h"
#include "kernels/optimizer.h"
#include "optimizers/optimizer.h"

namespace sennit::optimizers {
namespace {

struct AdamW : Optimizer {
  struct Options {
    double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
    Fields fields() {
      return {{"beta1", &beta1, "memory of the mean gradient", {.min = 0, .max = 0.9999999}},
              {"beta2", &beta2, "memory of the mean square", {.min = 0, .max = 0.9999999}},
              {"epsilon", &epsilon, "added to the root", {.min = 0, .max = 1}},
              {"weight_decay", &weight_decay, "of matrices; norms, biases and gates do not decay", {.min = 0, .max = 10}}};
    }
  };
  static Info info() {
    return {"AdamW", "arXiv:1711.05101", "p -= rate (m / (sqrt(v) + eps) + decay p)", "two numbers a parameter"};
  }
  AdamW(const Dims&, const Options& o, Rng) : options(o) {}

  struct Moments {
    Tensor m, v;
  };
  Moments& moments(const NamedParameter& p) {
    Moments& s = state[p.name];
    if (!s.m) s = {Tensor::zeros(p.parameter->value().shape()), Tensor::zeros(p.parameter->value().shape())};
    return s;
  }

  void step(std::span<const NamedParameter> parameters, const OptimizerStep& s) override {
    for (const NamedParameter& p : parameters) {
      const Tensor& g = p.parameter->var.grad();
      if (!g) continue;
      Moments& moment = moments(p);
      const kernels::AdamWStep rule{.rate = s.rate,
                                    .beta1 = options.beta1,
                                    .beta2 = options.beta2,
                                    .epsilon = options.epsilon,
                                    .weight_decay = p.parameter->decays ? options.weight_decay : 0,
                                    .correction1 = 1 - std::pow(options.beta1, static_cast<double>(s.step)),
                                    .correction2 = 1 - std::pow(options.beta2, static_cast<double>(s.step)),
                                    .gradient_scale = s.gradient_scale};
      float *value = p.parameter->var.value().data(), *m = moment.m.data(), *v = moment.v.data();
      parallel_for(g.elements(), 1 << 14, [&](int64_t b, int64_t e) {
        kernels::optimizer().adamw(rule, g.data() + b, value + b, m + b, v + b, e - b);
      });
      ++p.parameter->version;
    }
  }

  void visit_state(std::span<const NamedParameter> parameters, const std::function<void(const std::string&, Tensor&)>& visit) override {
    for (const NamedParameter& p : parameters) {
      Moments& s = moments(p);
      visit(p.name + ".m", s.m);
      visit(p.name + ".v", s.v);
    }
  }

  Options options;
  std::map<std::string, Moments> state;
};

}  // namespace

void register_adamw(Registry<Optimizer>& r) { r.add<AdamW>("adamw"); }

}  // namespace sennit::optimizers
