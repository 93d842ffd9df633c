#pragma once
#include <functional>
#include <string>

#include "base/rng.h"
#include "nn/naive.h"
#include "tensor/tensor.h"

namespace sennit::laws {

// Holds a gradient against central differences of `loss`, which reads `place`: along a random direction and along
// single coordinates. "" when they agree.
std::string compare_gradient(const std::string& name, const Tensor& gradient, naive::Matrix& place,
                             const std::function<double()>& loss, Rng rng);

}  // namespace sennit::laws
