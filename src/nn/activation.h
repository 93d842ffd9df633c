#pragma once
#include <string>
#include <vector>

#include "autograd/var.h"

namespace sennit {

const std::vector<std::string>& activation_names();  // silu, gelu, gelu_erf, relu, relu2, tanh, sigmoid, elu, none
Var activation(const std::string& name, const Var& x);

}  // namespace sennit
