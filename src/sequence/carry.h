#pragma once
#include "sequence/batch.h"
#include "tensor/pooled.h"

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
  template <class F>
  Var record(const Batch& batch, Tensor y, std::initializer_list<Var> inputs, F&& step) {
    if (!recording()) return keep(batch, std::move(y));
    return record_step(batch, std::move(y), inputs, std::forward<F>(step));
  }

  // In backward: the gradient of a segment's last state (nullptr: none) and where that of its first state is added
  // (nullptr: not wanted).
  const float* d_out(size_t segment) const;
  float* d_in(size_t segment);

 private:
  Var keep(const Batch& batch, Tensor y);
  Var record_step(const Batch& batch, Tensor y, std::vector<Var> inputs, Step step);
  void bind(std::span<const Tensor> dys, Gradients& into);

  size_t field_;
  Pooled<Tensor> in_, out_;
  Pooled<int> input_, output_;  // index of a segment's state among inputs and outputs, -1 when absent
  Pooled<const float*> d_out_;
  Pooled<float*> d_in_;
};

}  // namespace sennit
