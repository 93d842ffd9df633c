#pragma once
#include <span>

#include "optimizers/optimizer.h"

namespace sennit::train {

// The length of the whole gradient, the same bits on any number of threads.
double gradient_norm(std::span<const NamedParameter> parameters);

}  // namespace sennit::train
