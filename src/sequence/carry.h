#pragma once
#include <vector>

#include "sequence/batch.h"

namespace sennit {

// One constant-size state field of every segment of a batch, carried into and out of an operation. The operation's inputs
// are its own followed by the states that exist; its outputs are y followed by the states that are kept.
class Carry {
 public:
  Carry(const Batch& batch, size_t field, const Shape& shape);

  const float* in(size_t segment) const { return in_[segment] ? in_[segment].data() : nullptr; }  // nullptr: zeros
  float* out(size_t segment) { return out_[segment].data(); }  // may be in(segment); scratch when nothing is kept

  // Records y and the kept states; hands the states back to their sequences. `step(dys, into, carry)` gets the
  // gradients through the accessors below.
  using Step = std::function<void(const Tensor& dy, Gradients& into, Carry& carry)>;
  Var record(const Batch& batch, Tensor y, std::vector<Var> inputs, Step step);

  // In backward: the gradient of a segment's last state (nullptr: none) and where that of its first state is added
  // (nullptr: not wanted).
  const float* d_out(size_t segment) const;
  float* d_in(size_t segment);

 private:
  void bind(std::span<const Tensor> dys, Gradients& into);

  size_t field_;
  std::vector<Tensor> in_, out_;
  std::vector<int> input_, output_;  // index of a segment's state among inputs and outputs, -1 when absent
  std::vector<const float*> d_out_;
  std::vector<float*> d_in_;
};

}  // namespace sennit
