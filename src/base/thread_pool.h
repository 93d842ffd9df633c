#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "base/parallel.h"

namespace sennit {

// The first exception of a job's pieces.
struct Failure {
  std::exception_ptr first;
  std::mutex mutex;
};

// Pieces of [0, n) for a number of workers, of which each has some neighbouring ones as its own.
struct Job {
  int64_t n = 0;
  detail::RangeBody body = nullptr;
  const void* context = nullptr;
  Failure* failure = nullptr;
  uint32_t pieces = 0, workers = 0;
  uint32_t sent = 0;  // bytes of the context that the pool copies for the helpers

  uint32_t first_of(uint32_t worker) const { return static_cast<uint32_t>(uint64_t{pieces} * worker / workers); }
  void run(uint32_t piece, uint32_t worker) const;
};

// Threads that live as long as the process. Each worker, the caller among them, has the same pieces of each job that is cut
// alike: what one left in its core's caches it finds there. They are claimed one by one, and whoever has done its own goes on
// with those of others: on a busy machine a helper that is not given a processor in time is not waited for.
//
// What one core writes and another waits for takes 25 to 170 ns, one after the other, and a short job is little else. So a job goes
// to a helper in one cache line, and comes back in another; its context follows in lines that nobody writes but for the next job.
class ThreadPool {
 public:
  static constexpr int kMostThreads = 1024;

  void run(const Job& job);
  static bool inside();  // whether this thread is at work on a job

 private:
  static constexpr size_t kLine = 64;

  struct alignas(kLine) Seat {
    // From the caller. Whoever has claimed a piece and has not counted it as done may read the job: until then it stays.
    std::atomic<uint64_t> claims{0};  // the job's number, and below it how many of the worker's pieces nobody has claimed
    std::atomic<uint32_t> workers{0};
    Job job;
    // From the worker: a job's number, and below it how many pieces it has done of it, its own or not.
    alignas(kLine) std::atomic<uint64_t> done{0};
    // Written only where the worker falls asleep or is woken.
    alignas(kLine) std::atomic<bool> asleep{false};
    std::atomic<uint32_t> bell{0};
  };

  void publish(const Job& job);
  void wake_sleepers(uint32_t workers);
  void finish(const Job& job, uint32_t done);
  bool is_done(const Job& job, uint32_t done) const;
  void help(uint32_t worker);
  uint32_t next_job(Seat& own, uint32_t last);
  void take_from(uint32_t seat, uint32_t number, const Job& job, uint32_t worker, uint32_t& done);

  std::mutex mutex_;  // one job at a time
  std::unique_ptr<Seat[]> seats_ = std::make_unique<Seat[]>(kMostThreads);
  uint32_t helpers_ = 0;
  uint32_t number_ = 0;  // of the job
  alignas(kLine) std::byte context_[detail::kSentBytes];
  alignas(kLine) std::atomic<bool> caller_asleep_{false};
  std::atomic<uint32_t> caller_bell_{0};
};

}  // namespace sennit
