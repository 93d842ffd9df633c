#pragma once
#include "base/rng.h"
#include "nn/module.h"
#include "sequence/batch.h"

namespace sennit {

// silu of a causal depthwise convolution over the last `width` tokens, with its inputs carried as a state field
// [width - 1, channels].
class ShortConv : public Module {
 public:
  ShortConv() = default;
  ShortConv(int64_t channels, int64_t width, bool bias, Rng rng);
  Var operator()(const Var& x, const Batch& batch, size_t field);
  void visit(const ParameterVisitor& v) override;
  StateField state(std::string name) const;

  Parameter weight, bias;
};

}  // namespace sennit
