#pragma once
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

// What recurrences with a state S [H, K, V] of each sequence share: where a head's rows lie in the packed operands, and
// how their kernels run over all heads of all segments.
namespace sennit {

struct MatrixState {
  Tensor q, v;  // [N, H K], [N, H V]
  Pooled<Segment> segments;
  RecurrenceOptions options;
  bool exact;
  int64_t keys, values;  // of a head

  MatrixState(const Var& queries, const Var& carried, const Batch& batch, const RecurrenceOptions& o)
      : q(queries.value()), v(carried.value()), segments(batch.segments.begin(), batch.segments.end()), options(o), exact(batch.context->exact),
        keys(q.row_size() / o.heads), values(v.row_size() / o.heads) {}

  int64_t heads() const { return options.heads; }
  int64_t key_dim() const { return keys; }
  int64_t value_dim() const { return values; }
  int64_t state_size() const { return key_dim() * value_dim(); }
  Shape state_shape() const { return {heads(), key_dim(), value_dim()}; }
  int64_t state_flops(int64_t each) const { return q.rows() * heads() * state_size() * each; }

  // Where the first row of a head of a segment begins in a tensor [N, H width].
  int64_t at(int64_t segment, int64_t head, int64_t width) const { return (segments[segment].begin * heads() + head) * width; }
  int64_t key_at(int64_t segment, int64_t head) const { return at(segment, head, key_dim()); }
  int64_t value_at(int64_t segment, int64_t head) const { return at(segment, head, value_dim()); }
  bool stepwise(int64_t length) const {
    constexpr int64_t kRecurrentUpTo = 8;  // shorter segments go token by token
    return exact || length <= kRecurrentUpTo;
  }
};

// A task that knows which state its thread meets after its own.
template <class Task>
Task with_next(Task task, const float* next) {
  if constexpr (requires { task.next; }) task.next = next;
  return task;
}

// y [N, H V] of a core (a MatrixState with task(segment, head)); kernel_of(task) is the kernel's forward form.
template <class Core, class Task, class KernelOf>
Tensor run_heads(const Core& core, Carry& carry, int64_t (*scratch_floats)(const Task&), KernelOf&& kernel_of) {
  Tensor y(core.v.shape());
  const int64_t all = std::ssize(core.segments) * core.heads();
  each_head(std::ssize(core.segments), core.heads(), [&](int64_t i, int64_t head) { return core.task(i, head); }, scratch_floats,
            [&](int64_t i, int64_t head, const Task& task, float* scratch) {
              const int64_t state = head * core.state_size();
              const bool fetch = head + 1 < core.heads() && goes_on(i * core.heads() + head, all);
              const float* next = fetch ? moved(carry.in(i), state + core.state_size()) : nullptr;
              kernel_of(task)(with_next(task, next), moved(carry.in(i), state), carry.out(i) + state, y.data() + core.value_at(i, head), y.row_size(), scratch);
            });
  return y;
}

// The gradients that reach a head: of its outputs and last state, and where that of its first state is added.
struct HeadGradients {
  const float *s0, *dy, *ds_end;
  float* ds0;
  int64_t dy_stride, key_at, value_at;
};

// Calls step(segment, head, task, gradients, scratch) for every head of every segment, in backward.
template <class Core, class Task, class Step>
void run_heads_backward(const Core& core, Carry& kept, const Tensor& dy, int64_t (*scratch_floats)(const Task&), Step&& step) {
  each_head(std::ssize(core.segments), core.heads(), [&](int64_t i, int64_t head) { return core.task(i, head); }, scratch_floats,
            [&](int64_t i, int64_t head, const Task& task, float* scratch) {
              const int64_t state = head * core.state_size();
              step(i, head, task,
                   HeadGradients{moved(kept.in(i), state), dy.data() + core.value_at(i, head), moved(kept.d_out(i), state),
                                 moved(kept.d_in(i), state), dy.row_size(), core.key_at(i, head), core.value_at(i, head)},
                   scratch);
            });
}

}  // namespace sennit
