#include "nn/init.h"

namespace sennit {

Tensor normal_init(Shape shape, double deviation, Rng rng) {
  Tensor t(shape);
  for (float& x : t.span()) x = static_cast<float>(deviation * rng.normal());
  return t;
}

Tensor uniform_init(Shape shape, double low, double high, Rng rng) {
  Tensor t(shape);
  for (float& x : t.span()) x = static_cast<float>(low + (high - low) * rng.uniform());
  return t;
}

}  // namespace sennit
