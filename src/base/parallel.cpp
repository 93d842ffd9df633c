#include "base/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>

#include "base/error.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sennit {
namespace {

int initial_threads() {
  const char* text = std::getenv("SENNIT_THREADS");
  if (!text || !*text) return std::max(1, omp_get_num_procs());
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end || n < 1 || n > 1024) fail({"SENNIT_THREADS", "a whole number from 1 to 1024", text, "environment"});
  return static_cast<int>(n);
}

std::atomic<int>& threads() {
  static std::atomic<int> n{initial_threads()};
  return n;
}

}  // namespace

int thread_count() { return threads().load(std::memory_order_relaxed); }

void set_thread_count(int n) {
  SENNIT_CHECK(n >= 1 && n <= 1024, "{} threads", n);
  threads().store(n);
}

#if defined(__x86_64__)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(saved_); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() { (void)saved_; }
#endif

void detail::parallel_ranges(int64_t n, int64_t grain, RangeBody body, void* context) {
  if (n <= 0) return;
  const int64_t pieces = std::max<int64_t>(1, n / std::max<int64_t>(grain, 1));
  const int workers = static_cast<int>(std::min<int64_t>(thread_count(), pieces));
  if (workers == 1 || omp_in_parallel()) {
    FlushDenormals flush;
    body(context, 0, n);
    return;
  }
  std::exception_ptr failure;
#pragma omp parallel num_threads(workers)
  {
    FlushDenormals flush;
    const int64_t w = omp_get_thread_num(), count = omp_get_num_threads();
    try {
      const int64_t begin = n * w / count, end = n * (w + 1) / count;
      if (begin < end) body(context, begin, end);
    } catch (...) {
#pragma omp critical
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace sennit
