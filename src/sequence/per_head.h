#pragma once
#include <algorithm>

#include "base/parallel.h"
#include "tensor/tensor.h"

namespace sennit {

// Calls body(i, scratch) for i in [0, n), dealt to threads in turn, so that work that grows with i is shared evenly.
// Each thread has its own piece of scratch, made before any starts: what the allocator must hold then does not hang on
// how threads overlap.
template <class Body>
void each_with_scratch(int64_t n, int64_t scratch_floats, Body&& body) {
  const int64_t workers = std::min<int64_t>(thread_count(), n);
  Tensor scratch({workers, scratch_floats});
  parallel_for(workers, 1, [&](int64_t b, int64_t e) {
    for (int64_t w = b; w < e; ++w)
      for (int64_t i = w; i < n; i += workers) body(i, scratch.data() + w * scratch_floats);
  });
}

// Calls body(segment, head, task, scratch) for every head of every segment; task_of(segment, head) describes the work
// and scratch_floats(task) the memory it needs.
template <class TaskOf, class Body, class Task>
void each_head(int64_t segments, int64_t heads, TaskOf&& task_of, int64_t (*scratch_floats)(const Task&), Body&& body) {
  int64_t need = 0;
  for (int64_t i = 0; i < segments && heads > 0; ++i) need = std::max(need, scratch_floats(task_of(i, 0)));
  each_with_scratch(segments * heads, need, [&](int64_t i, float* scratch) {
    body(i / heads, i % heads, task_of(i / heads, i % heads), scratch);
  });
}

// A pointer moved along, unless it is null.
template <class T>
T* moved(T* p, int64_t offset) {
  return p ? p + offset : nullptr;
}

}  // namespace sennit
