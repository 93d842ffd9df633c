#pragma once
#include <algorithm>

#include "tensor/scratch.h"

namespace sennit {

// Heads that one thread takes in a row: where threads share the heads evenly, each has neighbours, and what a core
// fetches ahead, past the end of a head's state, is its own.
inline int64_t heads_in_a_row(int64_t heads) {
  return heads % thread_count() == 0 ? heads / thread_count() : 1;
}

// Calls body(segment, head, task, scratch) for every head of every segment; task_of(segment, head) describes the work
// and scratch_floats(task) the memory it needs.
template <class TaskOf, class Body, class Task>
void each_head(int64_t segments, int64_t heads, TaskOf&& task_of, int64_t (*scratch_floats)(const Task&), Body&& body) {
  int64_t need = 0;
  for (int64_t i = 0; i < segments && heads > 0; ++i) need = std::max(need, scratch_floats(task_of(i, 0)));
  const int64_t run = heads_in_a_row(heads);
  each_with_scratch(run > 0 ? segments * heads / run : 0, need, [&](int64_t at, float* scratch) {
    for (int64_t i = at * run; i < (at + 1) * run; ++i) body(i / heads, i % heads, task_of(i / heads, i % heads), scratch);
  });
}

// A pointer moved along, unless it is null.
template <class T>
T* moved(T* p, int64_t offset) {
  return p ? p + offset : nullptr;
}

}  // namespace sennit
