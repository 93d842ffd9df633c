#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/registry.h"
#include "nn/module.h"

namespace sennit {

struct OptimizerInfo {
  std::string title, paper, equation;
  std::string state;  // what it keeps for each parameter, in words
};

struct NamedParameter {
  std::string name;
  Parameter* parameter;
};

// Those of a module, their names after `prefix`.
inline std::vector<NamedParameter> named_parameters(Module& module, const std::string& prefix = {}) {
  std::vector<NamedParameter> all;
  module.parameters([&](const std::string& name, Parameter& p) { all.push_back({prefix + name, &p}); });
  return all;
}

struct OptimizerStep {
  int64_t step;  // from 1
  double rate;
  double gradient_scale;  // multiplies every gradient: clipping and averaging
};

// Changes parameters by their gradients. Parameters without a gradient stay as they are.
class Optimizer {
 public:
  using Info = OptimizerInfo;
  struct Dims {};
  virtual ~Optimizer() = default;
  virtual void step(std::span<const NamedParameter> parameters, const OptimizerStep& s) = 0;
  // Every tensor of its state under a stable name, made (as zeros) when it is not there yet: for saving and loading.
  virtual void visit_state(std::span<const NamedParameter> parameters, const std::function<void(const std::string&, Tensor&)>& visit) = 0;
};

namespace optimizers {
Registry<Optimizer>& registry();
}

}  // namespace sennit
