#include "base/parallel.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sennit {
namespace {

thread_local bool t_inside = false;

int available_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

int initial_threads() {
  const char* text = std::getenv("SENNIT_THREADS");
  if (!text || !*text) return available_cpus();
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end || n < 1 || n > 1024) fail({"SENNIT_THREADS", "a whole number from 1 to 1024", text, "environment"});
  return static_cast<int>(n);
}

std::atomic<int>& threads() {
  static std::atomic<int> n{initial_threads()};
  return n;
}

// Looks for a change of `value` for some microseconds, then sleeps until there is one: short gaps between parallel parts
// cost no system call, and a busy machine is not kept busy by waiting.
template <class T>
void wait_while(const std::atomic<T>& value, T same) {
  for (int i = 0; i < 2000; ++i) {
    if (value.load(std::memory_order_acquire) != same) return;
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
  while (value.load(std::memory_order_acquire) == same) value.wait(same, std::memory_order_acquire);
}

struct Job {
  int64_t n;
  int workers;
  detail::RangeBody body;
  void* context;
  std::exception_ptr failure;
  std::mutex failed;

  void run(int worker) {
    FlushDenormals flush;
    t_inside = true;
    try {
      const int64_t begin = n * worker / workers, end = n * (worker + 1) / workers;
      if (begin < end) body(context, begin, end);
    } catch (...) {
      std::lock_guard lock(failed);
      if (!failure) failure = std::current_exception();
    }
    t_inside = false;
  }
};

// Threads that live as long as the process and run one job at a time, the caller as worker 0.
class Pool {
 public:
  void run(Job& job) {
    std::lock_guard one_at_a_time(mutex_);
    while (std::ssize(helpers_) < job.workers - 1) add_helper();
    job_ = &job;
    for (int i = 0; i < job.workers - 1; ++i) {
      helpers_[i]->turn.fetch_add(1, std::memory_order_release);
      helpers_[i]->turn.notify_one();
    }
    job.run(0);
    for (int i = 0; i < job.workers - 1; ++i) wait_while(helpers_[i]->done, helpers_[i]->turn.load() - 1);
  }

 private:
  struct Helper {
    std::atomic<uint32_t> turn{0}, done{0};
  };

  void add_helper() {
    helpers_.push_back(std::make_unique<Helper>());
    std::thread([this, helper = helpers_.back().get(), worker = static_cast<int>(helpers_.size())] {
      for (uint32_t turn = 0;; ++turn) {
        wait_while(helper->turn, turn);
        job_->run(worker);
        helper->done.fetch_add(1, std::memory_order_release);
        helper->done.notify_one();
      }
    }).detach();
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<Helper>> helpers_;
  Job* job_ = nullptr;
};

// Never destroyed, so that helpers may outlive static objects; a forked child, which has none of them, gets its own.
Pool& pool() {
  static std::atomic<Pool*> current{nullptr};
  static std::atomic<pid_t> owner{0};
  static std::mutex mutex;
  if (owner.load(std::memory_order_acquire) != getpid()) {
    std::lock_guard lock(mutex);
    if (owner.load() != getpid()) {
      current = new Pool;
      owner.store(getpid(), std::memory_order_release);
    }
  }
  return *current;
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
  if (workers == 1 || t_inside) {
    FlushDenormals flush;
    body(context, 0, n);
    return;
  }
  Job job{.n = n, .workers = workers, .body = body, .context = context, .failure = {}, .failed = {}};
  pool().run(job);
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace sennit
