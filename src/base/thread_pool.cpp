#include "base/thread_pool.h"

#include <chrono>
#include <cstring>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sennit {
namespace {

thread_local bool t_inside = false;

uint64_t tagged(uint32_t number, uint32_t count) { return uint64_t{number} << 32 | count; }
uint32_t number_of(uint64_t tag) { return static_cast<uint32_t>(tag >> 32); }
uint32_t count_of(uint64_t tag) { return static_cast<uint32_t>(tag); }

// Whether `done()` came to hold within so many looks.
template <class Done>
bool comes_to_hold(Done&& done, int looks) {
  for (int i = 0; i < looks; ++i) {
    if (done()) return true;
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
  return false;
}

// Looks for a moment, longer than the gaps between the parallel parts of a decode step: to sleep and be woken costs more. Then
// sleeps, so that a busy machine is not kept busy by waiting; whoever makes `done()` hold rings where `asleep` is set.
template <class Done>
void wait_until(Done&& done, std::atomic<bool>& asleep, std::atomic<uint32_t>& bell) {
  constexpr auto kMoment = std::chrono::microseconds(200);
  const auto start = std::chrono::steady_clock::now();
  do {
    if (comes_to_hold(done, 50)) return;
  } while (std::chrono::steady_clock::now() - start < kMoment);
  for (;;) {
    const uint32_t rung = bell.load();
    asleep.exchange(true);
    if (done()) break;
    bell.wait(rung);
  }
  asleep.exchange(false);
}

void ring(std::atomic<uint32_t>& bell) {
  bell.fetch_add(1);
  bell.notify_one();
}

}  // namespace

void Job::run(uint32_t piece, uint32_t worker) const {
  try {
    body(context, n * piece / pieces, n * (piece + 1) / pieces, static_cast<int>(worker));
  } catch (...) {
    const std::lock_guard lock(failure->mutex);
    if (!failure->first) failure->first = std::current_exception();
  }
}

bool ThreadPool::inside() { return t_inside; }

void ThreadPool::run(const Job& job) {
  const std::lock_guard one_at_a_time(mutex_);
  while (helpers_ + 1 < job.workers) std::thread([this, worker = ++helpers_] { help(worker); }).detach();
  publish(job);
  const FlushDenormals flush;
  t_inside = true;
  uint32_t done = 1;
  job.run(0, 0);  // which was never up for a claim
  wake_sleepers(job.workers);
  take_from(0, number_, job, 0, done);
  finish(job, done);
  t_inside = false;
}

void ThreadPool::publish(const Job& job) {
  ++number_;
  if (job.sent > 0) std::memcpy(context_, job.context, job.sent);
  for (uint32_t w = 0; w < job.workers; ++w) {
    Seat& seat = seats_[w];
    seat.job = job;
    if (job.sent > 0) seat.job.context = context_;
    seat.workers.store(job.workers, std::memory_order_relaxed);
    const uint32_t own = job.first_of(w + 1) - job.first_of(w);
    seat.claims.store(tagged(number_, w == 0 ? own - 1 : own), std::memory_order_release);
  }
  for (uint32_t w = 1; w < job.workers; ++w)
    if (seats_[w].asleep.load(std::memory_order_relaxed) && seats_[w].asleep.exchange(false)) ring(seats_[w].bell);
}

// Whoever fell asleep while the job was being published.
void ThreadPool::wake_sleepers(uint32_t workers) {
  for (uint32_t w = 1; w < workers; ++w)
    if (seats_[w].asleep.exchange(false)) ring(seats_[w].bell);
}

// `done`: by the caller.
bool ThreadPool::is_done(const Job& job, uint32_t done) const {
  for (uint32_t w = 1; w < job.workers; ++w)
    if (const uint64_t tag = seats_[w].done.load(); number_of(tag) == number_) done += count_of(tag);
  return done == job.pieces;
}

// To look at what others have left takes the line from them: those who are about to be done are let be.
void ThreadPool::finish(const Job& job, uint32_t done) {
  constexpr int kLooks = 20;  // a microsecond at most
  if (comes_to_hold([&] { return is_done(job, done); }, kLooks)) return;
  for (uint32_t w = 1; w < job.workers; ++w) take_from(w, number_, job, 0, done);
  wait_until([&] { return is_done(job, done); }, caller_asleep_, caller_bell_);
}

void ThreadPool::take_from(uint32_t seat, uint32_t number, const Job& job, uint32_t worker, uint32_t& done) {
  std::atomic<uint64_t>& claims = seats_[seat].claims;
  uint64_t left = claims.load(std::memory_order_acquire);
  while (number_of(left) == number && count_of(left) > 0) {
    if (!claims.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    job.run(job.first_of(seat + 1) - count_of(left), worker);
    ++done, --left;
  }
}

// Looks as if to write: the line is then the worker's own, and to claim a piece takes no other exchange between cores.
uint32_t ThreadPool::next_job(Seat& own, uint32_t last) {
  uint64_t seen;
  wait_until(
      [&] {
        seen = tagged(last, 0);
        return !own.claims.compare_exchange_strong(seen, seen, std::memory_order_acq_rel, std::memory_order_acquire);
      },
      own.asleep, own.bell);
  return number_of(seen);
}

void ThreadPool::help(uint32_t worker) {
  const FlushDenormals flush;
  t_inside = true;
  Seat& own = seats_[worker];
  for (uint32_t number = 0;;) {
    number = next_job(own, number);
    const uint32_t workers = own.workers.load(std::memory_order_relaxed);
    uint32_t done = 0;
    for (uint32_t i = 0; i < workers; ++i) {
      const uint32_t before = done;
      take_from((worker + i) % workers, number, own.job, worker, done);
      if (done == before) continue;
      own.done.exchange(tagged(number, done));
      if (caller_asleep_.load()) ring(caller_bell_);
    }
  }
}

}  // namespace sennit
