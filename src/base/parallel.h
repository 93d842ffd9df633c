#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace sennit {

// How many threads parallel_for may use; the default is the number of CPUs this process may run on, or
// SENNIT_THREADS. Throws Error when the variable is not a whole number from 1 to 1024.
int thread_count();
void set_thread_count(int n);

namespace detail {
using RangeBody = void (*)(const void* context, int64_t begin, int64_t end, int worker);
inline constexpr size_t kSentBytes = 256;
// A context of some bytes, up to kSentBytes, is sent along with the job; one of none stays where it is.
void parallel_ranges(int64_t n, int64_t grain, int64_t most, RangeBody body, const void* context, size_t bytes);
template <class Body>
void call_range(const void* context, int64_t begin, int64_t end, [[maybe_unused]] int worker) {
  Body& body = *static_cast<Body*>(const_cast<void*>(context));
  if constexpr (std::is_invocable_v<Body&, int64_t, int64_t, int>)
    body(begin, end, worker);
  else
    body(begin, end);
}
// Whether other threads may work with a copy of a body.
template <class Body>
inline constexpr bool kSent =
    std::is_trivially_copyable_v<Body> && sizeof(Body) <= kSentBytes &&
    (std::is_invocable_v<const Body&, int64_t, int64_t, int> || std::is_invocable_v<const Body&, int64_t, int64_t>);
}  // namespace detail

// Calls body(begin, end) over disjoint ranges that cover [0, n), each at least `grain` long but for the last, on up to
// thread_count() threads, or `most`, with denormals flushed to zero. How the ranges fall depends on the number of
// threads, so a body must compute each index by itself: then the result does not depend on it. Nested calls run in
// place. A body may take a third argument, the number of the thread among those of this call.
//
// A short job is little but cache lines that go from core to core, and back when the caller writes them anew: a body
// that holds plain numbers and pointers to data, and not references to what lies on the caller's stack, takes a third
// to half of the time of one that does.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body, int64_t most = std::numeric_limits<int64_t>::max()) {
  using Called = std::remove_reference_t<Body>;
  detail::parallel_ranges(n, grain, most, detail::call_range<Called>, &body,
                          detail::kSent<Called> ? sizeof(Called) : 0);
}

// Flushes denormals to zero in this thread while it lives: subnormal numbers cost a hundred times a normal one.
class FlushDenormals {
 public:
  FlushDenormals();
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

}  // namespace sennit
