#pragma once
#include <algorithm>

#include "tensor/scratch.h"

namespace sennit {

// Calls body(segment, head, task, scratch) for every head of every segment; task_of(segment, head) describes the work
// and scratch_floats(task) the memory it needs. Of a few tokens each thread has its own heads, the same of every step:
// to help another would pull a state out of that one's cache.
template <class TaskOf, class Body, class Task>
void each_head(int64_t segments, int64_t heads, TaskOf&& task_of, int64_t (*scratch_floats)(const Task&), Body&& body) {
  constexpr int64_t kFewTokens = 16;
  int64_t need = 0, longest = 0;
  for (int64_t i = 0; i < segments && heads > 0; ++i) {
    const Task first = task_of(i, 0);
    need = std::max(need, scratch_floats(first)), longest = std::max(longest, first.length);
  }
  const auto run = [&](int64_t at, float* scratch) {
    body(at / heads, at % heads, task_of(at / heads, at % heads), scratch);
  };
  if (longest > kFewTokens)
    each_with_scratch(segments * heads, need, run);
  else
    equal_runs_with_scratch(segments * heads, need, run);
}

// Whether the head after this one is the same thread's, where threads share all heads evenly: what a core fetches
// ahead, past the end of a head's state, should be its own.
inline bool goes_on(int64_t head, int64_t heads) {
  return heads % thread_count() != 0 || (head + 1) % (heads / thread_count()) != 0;
}

// A pointer moved along, unless it is null.
template <class T>
T* moved(T* p, int64_t offset) {
  return p ? p + offset : nullptr;
}

}  // namespace sennit
