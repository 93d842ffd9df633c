#pragma once
#include <limits>

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
  int64_t stepwise_up_to() const {  // segments up to so many tokens go token by token
    constexpr int64_t kRecurrentUpTo = 8;
    return exact ? std::numeric_limits<int64_t>::max() : kRecurrentUpTo;
  }
};

// A task that knows which state its thread meets after its own.
template <class Task>
Task with_next(Task task, const float* next) {
  if constexpr (requires { task.next; }) task.next = next;
  return task;
}

// What the heads of a segment work on, each at the first one.
template <class Task>
struct ForwardPart {
  Task task;
  const float* s0;
  float *s_end, *y;
};

// y [N, H V] of a core (a MatrixState with task(segment), that of the first head); forward(task, s0, s_end, y, y_stride,
// scratch) runs the kernel.
template <class Core, class Task, class Forward>
Tensor run_heads(const Core& core, Carry& carry, int64_t (*scratch_floats)(const Task&), const Forward& forward) {
  Tensor y(core.v.shape());
  Pooled<ForwardPart<Task>> parts;
  const int64_t segments = std::ssize(core.segments), heads = core.heads();
  for (int64_t i = 0; i < segments; ++i)
    parts.push_back({core.task(i), carry.in(i), carry.out(i), y.data() + core.value_at(i, 0)});
  const auto run_head = [forward, heads, all = segments * heads, size = core.state_size(),
                         y_stride = y.row_size()](const ForwardPart<Task>& part, int64_t at, float* scratch) {
    const int64_t head = at % heads;
    const float* s0 = moved(part.s0, head * size);
    const bool fetch = head + 1 < heads && goes_on(at, all);
    forward(with_next(part.task.of_head(head), fetch ? moved(s0, size) : nullptr), s0, part.s_end + head * size,
            part.y + head * part.task.value_dim, y_stride, scratch);
  };
  using Runs = detail::WithScratch<detail::Heads<ForwardPart<Task>, decltype(run_head)>>;
  static_assert(sizeof(Runs) <= detail::kSentBytes, "a token is a short job, with which all that it needs should go");
  each_head(parts, heads, scratch_floats, run_head);
  return y;
}

// The gradients that reach a head: of its outputs and last state, and where that of its first state is added.
struct HeadGradients {
  const float *s0, *dy, *ds_end;
  float* ds0;
  int64_t dy_stride, key_at, value_at;
};

template <class Task>
struct BackwardPart {
  Task task;
};

// Calls step(segment, head, task, gradients, scratch) for every head of every segment, in backward.
template <class Core, class Task, class Step>
void run_heads_backward(const Core& core, Carry& kept, const Tensor& dy, int64_t (*scratch_floats)(const Task&), Step&& step) {
  Pooled<BackwardPart<Task>> parts;
  for (int64_t i = 0; i < std::ssize(core.segments); ++i) parts.push_back({core.task(i)});
  each_head(parts, core.heads(), scratch_floats, [&](const BackwardPart<Task>& part, int64_t at, float* scratch) {
    const int64_t i = at / core.heads(), head = at % core.heads(), state = head * core.state_size();
    step(i, head, part.task.of_head(head),
         HeadGradients{moved(kept.in(i), state), dy.data() + core.value_at(i, head), moved(kept.d_out(i), state),
                       moved(kept.d_in(i), state), dy.row_size(), core.key_at(i, head), core.value_at(i, head)},
         scratch);
  });
}

}  // namespace sennit
