#include "sequence/carry.h"

#include <memory>

#include "base/error.h"

namespace sennit {

const char* to_string(Pattern p) {
  return p == Pattern::causal ? "causal" : p == Pattern::bidirectional ? "bidirectional" : "cross";
}

Carry::Carry(const Batch& batch, size_t field, const Shape& shape) : field_(field) {
  for (const Segment& s : batch.segments) {
    const LayerState* state = batch.state(s);
    Tensor out = state ? state->writable(field, shape) : Tensor(shape);
    const bool begun = state && state->has(field);
    if (begun) SENNIT_CHECK(state->get(field).shape() == shape, "state {} for {}", state->get(field).shape().str(), shape.str());
    in_.push_back(begun ? state->get(field).value() : Tensor());
    out_.push_back(std::move(out));
  }
}

Var Carry::keep(const Batch& batch, Tensor y) {
  for (size_t i = 0; i < batch.segments.size(); ++i)
    if (LayerState* state = batch.state(batch.segments[i])) state->set(field_, Var(out_[i]));
  return Var(std::move(y));
}

Var Carry::record_step(const Batch& batch, Tensor y, std::vector<Var> inputs, Step step) {
  std::vector<Tensor> outputs = {std::move(y)};
  const size_t n = batch.segments.size();
  input_.assign(n, -1), output_.assign(n, -1);
  for (size_t i = 0; i < n; ++i) {
    LayerState* state = batch.state(batch.segments[i]);
    if (!state) continue;
    if (state->has(field_)) {
      input_[i] = static_cast<int>(inputs.size());
      inputs.push_back(state->get(field_));
    }
    output_[i] = static_cast<int>(outputs.size());
    outputs.push_back(out_[i]);
  }
  auto kept = std::make_shared<Carry>(*this);
  kept->out_.clear();
  const Shape shape = outputs[0].shape();
  auto recorded = record_all(std::move(outputs), inputs, [kept, shape, step = std::move(step)](std::span<const Tensor> dys, Gradients& into) {
    kept->bind(dys, into);
    step(dys[0] ? dys[0] : Tensor::zeros(shape), into, *kept);
  });
  for (size_t i = 0; i < n; ++i)
    if (output_[i] >= 0) batch.state(batch.segments[i])->set(field_, recorded[output_[i]]);
  return recorded[0];
}

void Carry::bind(std::span<const Tensor> dys, Gradients& into) {
  d_out_.assign(in_.size(), nullptr);
  d_in_.assign(in_.size(), nullptr);
  for (size_t i = 0; i < in_.size(); ++i) {
    if (output_[i] >= 0 && dys[output_[i]]) d_out_[i] = dys[output_[i]].data();
    if (input_[i] >= 0 && into.wants(input_[i])) d_in_[i] = into.sum(input_[i]).data();
  }
}

const float* Carry::d_out(size_t segment) const { return d_out_[segment]; }
float* Carry::d_in(size_t segment) { return d_in_[segment]; }

}  // namespace sennit
