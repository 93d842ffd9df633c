#include "nn/token_shift.h"

#include "sequence/recurrences.h"

namespace sennit {

TokenShift::TokenShift(int64_t channels) : weight_(Tensor::zeros({channels, 2})) {
  for (int64_t c = 0; c < channels; ++c) weight_.data()[2 * c] = 1;
}

Var TokenShift::operator()(const Var& x, const Batch& batch, size_t field) const {
  return short_conv(x, Var(weight_), {}, batch, field);
}

StateField TokenShift::state(std::string name) const {
  return {std::move(name), {1, weight_.rows()}};
}

}  // namespace sennit
