#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "optimizers/optimizer.h"

namespace sennit::laws {

struct OptimizerCase {
  std::string name;
  std::function<std::unique_ptr<Optimizer>()> make;
};
struct OptimizerLaw {
  const char* name;
  std::string (*check)(const OptimizerCase&);
};
const std::vector<OptimizerLaw>& optimizer_laws();
std::vector<OptimizerCase> registered_optimizers();

}  // namespace sennit::laws
