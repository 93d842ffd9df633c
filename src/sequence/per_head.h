#pragma once
#include <algorithm>

#include "tensor/pooled.h"
#include "tensor/scratch.h"

namespace sennit {
namespace detail {
template <class Part, class Body>
struct Heads {
  Part first;  // of parts: a batch of one sequence needs no more
  const Part* parts;
  int64_t heads;
  Held<Body> body;
  void operator()(int64_t at, float* scratch) const { body(at < heads ? first : parts[at / heads], at, scratch); }
};
}  // namespace detail

// Calls body(part, at, scratch) for every head of every segment, where `part` is what a segment's heads share, a Part
// with its task among it, and at / heads the segment, at % heads the head; scratch_floats(task) is the memory that a
// head needs. Of a few tokens each thread has its own heads, the same of every step: to help another would pull a state
// out of that one's cache.
template <class Part, class Task, class Body>
void each_head(const Pooled<Part>& parts, int64_t heads, int64_t (*scratch_floats)(const Task&), Body&& body) {
  constexpr int64_t kFewTokens = 16;
  const int64_t all = std::ssize(parts) * heads;
  if (all == 0) return;
  int64_t need = 0, longest = 0;
  for (const Part& part : parts)
    need = std::max(need, scratch_floats(part.task)), longest = std::max(longest, part.task.length);
  const detail::Heads<Part, std::remove_reference_t<Body>> run{parts[0], parts.data(), heads, body};
  if (longest > kFewTokens)
    each_with_scratch(all, need, run);
  else
    equal_runs_with_scratch(all, need, run);
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
