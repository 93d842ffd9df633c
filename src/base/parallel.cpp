#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sennit {
namespace {

constexpr int kMostThreads = ThreadPool::kMostThreads;
constexpr int64_t kPiecesEach = 8;  // of a job for each thread: a late one leaves the rest to the others

int available_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

int initial_threads() {
  const char* text = std::getenv("SENNIT_THREADS");
  if (!text || !*text) return available_cpus();
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end || n < 1 || n > kMostThreads) fail({"SENNIT_THREADS", fmt::format("a whole number from 1 to {}", kMostThreads), text, "environment"});
  return static_cast<int>(n);
}

std::atomic<int>& threads() {
  static std::atomic<int> n{initial_threads()};
  return n;
}

std::atomic<ThreadPool*> g_pool{nullptr};

// Never destroyed, so that helpers may outlive static objects; a forked child, which has none of them, gets its own.
ThreadPool& pool() {
  static const int forgets = pthread_atfork(nullptr, nullptr, [] { g_pool = nullptr; });
  SENNIT_CHECK(forgets == 0, "pthread_atfork: {}", forgets);
  ThreadPool* current = g_pool.load(std::memory_order_acquire);
  if (current) return *current;
  auto fresh = std::make_unique<ThreadPool>();
  return g_pool.compare_exchange_strong(current, fresh.get()) ? *fresh.release() : *current;
}

}  // namespace

int thread_count() { return threads().load(std::memory_order_relaxed); }

void set_thread_count(int n) {
  SENNIT_CHECK(n >= 1 && n <= kMostThreads, "{} threads", n);
  threads().store(n);
}

#if defined(__x86_64__)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
FlushDenormals::~FlushDenormals() { _mm_setcsr(saved_); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() { (void)saved_; }
#endif

void detail::parallel_ranges(int64_t n, int64_t grain, int64_t most, RangeBody body, const void* context, size_t bytes) {
  if (n <= 0) return;
  const int64_t ranges = n / std::max<int64_t>(grain, 1), workers = std::min<int64_t>({thread_count(), most, ranges});
  if (workers <= 1 || ThreadPool::inside()) {
    FlushDenormals flush;
    body(context, 0, n, 0);
    return;
  }
  Failure failure;
  const Job job{.n = n,
                .body = body,
                .context = context,
                .failure = &failure,
                .pieces = static_cast<uint32_t>(std::min(ranges, kPiecesEach * workers)),
                .workers = static_cast<uint32_t>(workers),
                .sent = static_cast<uint32_t>(bytes)};
  pool().run(job);
  if (failure.first) std::rethrow_exception(failure.first);
}

}  // namespace sennit
