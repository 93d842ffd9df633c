#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

namespace sennit {

// How many threads parallel_for may use; the default is the number of CPUs this process may run on, or
// SENNIT_THREADS. Throws Error when the variable is not a whole number from 1 to 1024.
int thread_count();
void set_thread_count(int n);

namespace detail {
using RangeBody = void (*)(void* context, int64_t begin, int64_t end, int worker);
void parallel_ranges(int64_t n, int64_t grain, int64_t most, RangeBody body, void* context);
}  // namespace detail

// Calls body(begin, end) over disjoint ranges that cover [0, n), each at least `grain` long but for the last, on up to
// thread_count() threads, or `most`, with denormals flushed to zero. How the ranges fall depends on the number of
// threads, so a body must compute each index by itself: then the result does not depend on it. Nested calls run in
// place. A body may take a third argument, the number of the thread among those of this call.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body, int64_t most = std::numeric_limits<int64_t>::max()) {
  using Called = std::remove_reference_t<Body>;
  detail::parallel_ranges(
      n, grain, most,
      [](void* context, int64_t b, int64_t e, [[maybe_unused]] int worker) {
        Called& called = *static_cast<Called*>(context);
        if constexpr (std::is_invocable_v<Called&, int64_t, int64_t, int>)
          called(b, e, worker);
        else
          called(b, e);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
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
