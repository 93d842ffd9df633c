#pragma once
#include "base/rng.h"
#include "tensor/tensor.h"

namespace sennit {

Tensor normal_init(Shape shape, double deviation, Rng rng);
Tensor uniform_init(Shape shape, double low, double high, Rng rng);

}  // namespace sennit
