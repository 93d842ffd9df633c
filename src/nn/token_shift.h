#pragma once
#include "sequence/batch.h"

namespace sennit {

// The row of the token before, zeros at the start of a sequence (RWKV, Peng et al., arXiv:2305.13048), with the last
// row carried as a state field [1, channels].
class TokenShift {
 public:
  TokenShift() = default;
  explicit TokenShift(int64_t channels);
  Var operator()(const Var& x, const Batch& batch, size_t field) const;
  StateField state(std::string name) const;

 private:
  Tensor weight_;
};

}  // namespace sennit
