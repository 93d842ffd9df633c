#include "bench/cores.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

namespace sennit::bench {
namespace {

constexpr size_t kMostCores = 64;

std::vector<int> usable_cpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() <= kMostCores; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

void stay_on(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

// In nanoseconds, to a tenth: a line goes to and fro between two threads of their own.
double distance(int from, int to) {
  constexpr int kFirst = 200, kRounds = 2000;  // the first ones wait for the other thread to start
  alignas(64) std::atomic<int> ball{0};
  const auto wait_for = [&](int n) {
    while (ball.load(std::memory_order_acquire) != n) {
    }
  };
  std::thread other([&] {
    stay_on(to);
    for (int i = 0; i < kFirst + kRounds; ++i) wait_for(2 * i + 1), ball.store(2 * i + 2, std::memory_order_release);
  });
  double nanoseconds = 0;
  std::thread one([&] {
    stay_on(from);
    const auto pass = [&](int i) { ball.store(2 * i + 1, std::memory_order_release), wait_for(2 * i + 2); };
    for (int i = 0; i < kFirst; ++i) pass(i);
    const auto start = std::chrono::steady_clock::now();
    for (int i = kFirst; i < kFirst + kRounds; ++i) pass(i);
    nanoseconds = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
  });
  one.join(), other.join();
  return std::round(10 * nanoseconds / (2 * kRounds)) / 10;
}

}  // namespace

std::vector<double> core_distances() {
  const std::vector<int> cpus = usable_cpus();
  std::vector<double> all;
  for (size_t i = 1; i < cpus.size(); ++i) all.push_back(distance(cpus[0], cpus[i]));
  return all;
}

}  // namespace sennit::bench
