#pragma once
#include "base/rng.h"
#include "tensor/tensor.h"

namespace sennit {

// While one lives, the functions below make tensors whose numbers nobody set, and that take no memory until somebody
// does: for models whose parameters are loaded.
class BlankInit {
 public:
  BlankInit();
  ~BlankInit();
  BlankInit(const BlankInit&) = delete;

 private:
  bool before_;
};

Tensor normal_init(Shape shape, double deviation, Rng rng);
Tensor uniform_init(Shape shape, double low, double high, Rng rng);

}  // namespace sennit
