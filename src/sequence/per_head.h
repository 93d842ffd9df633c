#pragma once
#include "base/parallel.h"
#include "tensor/tensor.h"

namespace sennit {

// Calls body(segment, head, task, scratch) for every head of every segment, dealt to threads; task_of(segment, head)
// describes the work and scratch_floats(task) the memory it needs.
template <class TaskOf, class Body, class Task>
void each_head(int64_t segments, int64_t heads, TaskOf&& task_of, int64_t (*scratch_floats)(const Task&), Body&& body) {
  parallel_for(segments * heads, 1, [&](int64_t b, int64_t e) {
    Tensor scratch({0});
    for (int64_t i = b; i < e; ++i) {
      const Task task = task_of(i / heads, i % heads);
      const int64_t need = scratch_floats(task);
      if (scratch.elements() < need) scratch = Tensor({need});
      body(i / heads, i % heads, task, scratch.data());
    }
  });
}

// A pointer moved along, unless it is null.
template <class T>
T* moved(T* p, int64_t offset) {
  return p ? p + offset : nullptr;
}

}  // namespace sennit
