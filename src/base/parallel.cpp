#include "base/parallel.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sennit {
namespace {

thread_local bool t_inside = false;
constexpr int kMostThreads = 1024;
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

// Looks for a change of `value` for a moment, longer than the gaps between the parallel parts of a decode step: to sleep and be
// woken costs more. Then sleeps until there is one, so that a busy machine is not kept busy by waiting.
template <class T>
void wait_while(const std::atomic<T>& value, T same) {
  constexpr auto kMoment = std::chrono::microseconds(200);
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 50; ++i) {
      if (value.load(std::memory_order_acquire) != same) return;
#if defined(__x86_64__)
      _mm_pause();
#endif
    }
  } while (std::chrono::steady_clock::now() - start < kMoment);
  while (value.load(std::memory_order_acquire) == same) value.wait(same, std::memory_order_acquire);
}

struct Job {
  int64_t n;
  uint32_t pieces, workers;
  detail::RangeBody body;
  void* context;
  std::exception_ptr failure;
  std::mutex failed;

  uint32_t first_of(uint32_t worker) const { return static_cast<uint32_t>(uint64_t{pieces} * worker / workers); }

  void run(uint32_t piece, uint32_t worker) {
    try {
      body(context, n * piece / pieces, n * (piece + 1) / pieces, static_cast<int>(worker));
    } catch (...) {
      std::lock_guard lock(failed);
      if (!failure) failure = std::current_exception();
    }
  }
};

// Threads that live as long as the process. Each worker, the caller among them, has neighbouring pieces of a job, the same of
// each job that is cut alike: what one left in its core's caches it finds there. They are claimed one by one, and whoever has
// done its own goes on with those of others: on a busy machine a helper that is not given a processor in time is not waited for.
class Pool {
 public:
  void run(Job& job) {
    std::lock_guard one_at_a_time(mutex_);
    while (helpers_ + 1 < job.workers) add_helper();
    job_ = &job;
    finished_.store(0, std::memory_order_relaxed);
    workers_.store(job.workers, std::memory_order_relaxed);
    ++jobs_;
    for (uint32_t w = 0; w < job.workers; ++w)
      seats_[w].claims.store(uint64_t{jobs_} << 32 | (job.first_of(w + 1) - job.first_of(w)), std::memory_order_release);
    for (uint32_t w = 1; w < job.workers; ++w) {
      seats_[w].turn.fetch_add(1, std::memory_order_release);
      seats_[w].turn.notify_one();
    }
    work(0);
    for (uint32_t done = finished_.load(std::memory_order_acquire); done < job.pieces; done = finished_.load(std::memory_order_acquire))
      wait_while(finished_, done);
  }

 private:
  struct alignas(64) Seat {
    std::atomic<uint64_t> claims{0};  // the job's number, and below it how many of the worker's pieces nobody has claimed
    std::atomic<uint32_t> turn{0};    // changes when there is a job
  };

  void work(uint32_t worker) {
    FlushDenormals flush;
    t_inside = true;
    const auto job = static_cast<uint32_t>(seats_[worker].claims.load(std::memory_order_acquire) >> 32);
    const uint32_t workers = workers_.load(std::memory_order_relaxed);
    for (uint32_t i = 0; i < workers; ++i) work_at((worker + i) % workers, job, worker);
    t_inside = false;
  }

  // What is left there of a job, and not of the next, which may have begun. job_ may be read by whoever has claimed a piece and
  // not yet counted it as finished: until then the caller waits. Pieces are counted together, for that is news to every core.
  void work_at(uint32_t seat, uint32_t job, uint32_t worker) {
    std::atomic<uint64_t>& claims = seats_[seat].claims;
    uint32_t done = 0;
    for (uint64_t left = claims.load(std::memory_order_acquire); left >> 32 == job && static_cast<uint32_t>(left) > 0;) {
      if (!claims.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      job_->run(job_->first_of(seat + 1) - static_cast<uint32_t>(left), worker);
      ++done;
      left = claims.load(std::memory_order_acquire);
    }
    if (done == 0) return;
    const uint32_t pieces = job_->pieces;
    if (finished_.fetch_add(done, std::memory_order_acq_rel) + done == pieces) finished_.notify_one();
  }

  void add_helper() {
    std::thread([this, worker = ++helpers_] {
      for (uint32_t turn = 0;;) {
        wait_while(seats_[worker].turn, turn);
        turn = seats_[worker].turn.load(std::memory_order_acquire);
        work(worker);
      }
    }).detach();
  }

  std::mutex mutex_;
  std::unique_ptr<Seat[]> seats_ = std::make_unique<Seat[]>(kMostThreads);
  uint32_t helpers_ = 0;
  Job* job_ = nullptr;
  uint32_t jobs_ = 0;
  std::atomic<uint32_t> workers_{0};  // of the job
  std::atomic<uint32_t> finished_{0};
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

void detail::parallel_ranges(int64_t n, int64_t grain, int64_t most, RangeBody body, void* context) {
  if (n <= 0) return;
  const int64_t ranges = n / std::max<int64_t>(grain, 1), workers = std::min<int64_t>({thread_count(), most, ranges});
  if (workers <= 1 || t_inside) {
    FlushDenormals flush;
    body(context, 0, n, 0);
    return;
  }
  Job job{.n = n,
          .pieces = static_cast<uint32_t>(std::min(ranges, kPiecesEach * workers)),
          .workers = static_cast<uint32_t>(workers),
          .body = body,
          .context = context,
          .failure = {},
          .failed = {}};
  pool().run(job);
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace sennit
