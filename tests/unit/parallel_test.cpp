#include "base/parallel.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

#include "support/temp_folder.h"

namespace sennit::parallel_test {

class Threads {
 public:
  explicit Threads(int n) : before_(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before_); }

 private:
  int before_;
};

TEST(Parallel, EveryIndexOnceInRangesOfAtLeastTheGrain) {
  for (const int threads : {1, 2, 3, 8})
    for (const int64_t n : {0, 1, 2, 7, 64, 1000})
      for (const int64_t grain : {1, 3, 64, 2000}) {
        const Threads set(threads);
        std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
        std::atomic<int64_t> shortest{n};
        parallel_for(n, grain, [&](int64_t b, int64_t e) {
          for (int64_t s = shortest; e - b < s && !shortest.compare_exchange_weak(s, e - b);) {
          }
          for (int64_t i = b; i < e; ++i) ++hits[static_cast<size_t>(i)];
        });
        for (const auto& h : hits) ASSERT_EQ(h, 1) << threads << " threads, n " << n << ", grain " << grain;
        EXPECT_GE(shortest, std::min(n, grain));
      }
}

TEST(Parallel, ManySmallJobsOneAfterAnother) {
  const Threads set(4);
  std::vector<int64_t> cells(16);
  for (int round = 0; round < 20000; ++round)
    parallel_for(16, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) cells[static_cast<size_t>(i)] += i;
    });
  for (int64_t i = 0; i < 16; ++i) EXPECT_EQ(cells[static_cast<size_t>(i)], 20000 * i);
}

TEST(Parallel, CallersOnManyThreads) {
  const Threads set(3);
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round) parallel_for(100, 1, [&](int64_t b, int64_t e) { total += e - b; });
    });
  for (auto& c : callers) c.join();
  EXPECT_EQ(total, 4 * 500 * 100);
}

TEST(Parallel, NestedCallsRunInPlace) {
  const Threads set(3);
  std::atomic<int64_t> inner{0};
  parallel_for(10, 1, [&](int64_t b, int64_t e) {
    const auto here = std::this_thread::get_id();
    for (int64_t i = b; i < e; ++i)
      parallel_for(20, 1, [&](int64_t from, int64_t to) {
        EXPECT_EQ(std::this_thread::get_id(), here);
        inner += to - from;
      });
  });
  EXPECT_EQ(inner, 200);
}

TEST(Parallel, AnErrorComesOutAndTheNextJobRuns) {
  const Threads set(3);
  for (int round = 0; round < 100; ++round) {
    const std::string said = error_of([] {
      parallel_for(12, 1, [](int64_t b, int64_t e) {
        if (b <= 7 && 7 < e) fail({"body", "an even temper", "7"});
      });
    });
    EXPECT_NE(said.find("even temper"), std::string::npos);
    std::atomic<int64_t> total{0};
    parallel_for(12, 1, [&](int64_t b, int64_t e) { total += e - b; });
    EXPECT_EQ(total, 12);
  }
}

// What a core's caches hold of a job's part is met again by the next job that is cut alike.
TEST(Parallel, EveryThreadBeginsWithItsOwnPartOfEachJob) {
  const Threads set(2);
  constexpr int64_t kIndices = 16;
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> begun{0};
    std::atomic<int64_t> first[2] = {-1, -1};  // index of the caller, of its helper
    const auto caller = std::this_thread::get_id();
    parallel_for(kIndices, 1, [&](int64_t b, int64_t) {
      std::atomic<int64_t>& mine = first[std::this_thread::get_id() == caller ? 0 : 1];
      if (mine >= 0) return;
      mine = b;
      for (++begun; begun < 2;) std::this_thread::yield();
    });
    ASSERT_EQ(first[0], 0);
    ASSERT_EQ(first[1], kIndices / 2);
  }
}

TEST(Parallel, WorkersOfACallAreNumberedApartAndNoMoreThanItAllows) {
  const Threads set(4);
  for (const int64_t most : {1, 2, 3, 4, 100}) {
    std::atomic<int64_t> total{0};
    std::vector<std::atomic<bool>> busy(4);
    parallel_for(
        64, 1,
        [&](int64_t b, int64_t e, int worker) {
          ASSERT_LT(worker, std::min<int64_t>(4, most));
          EXPECT_FALSE(busy[static_cast<size_t>(worker)].exchange(true));
          if (most > 1)  // else this one is not nested
            parallel_for(2, 1, [&](int64_t, int64_t, int inner) { EXPECT_EQ(inner, 0); });
          std::this_thread::yield();
          total += e - b;
          busy[static_cast<size_t>(worker)] = false;
        },
        most);
    EXPECT_EQ(total, 64);
  }
}

// A helper that is held up, here by a body that waits for the others, keeps nobody from the rest of the work.
TEST(Parallel, ALateThreadLeavesItsShareToTheOthers) {
  const Threads set(2);
  constexpr int64_t kPieces = 8;
  std::atomic<int64_t> done{0};
  parallel_for(kPieces, 1, [&](int64_t b, int64_t e) {
    if (b == 0)
      while (done < kPieces - 1) std::this_thread::yield();
    done += e - b;
  });
  EXPECT_EQ(done, kPieces);
}

// Threads fall asleep where jobs, or pieces, are long to wait for, and each has its moment in which it is about to.
// Notes where a thread found it.
template <int kNumbers>
struct Body {
  std::array<int64_t, kNumbers> numbers;
  const void** found;  // by each worker
  int64_t* sums;
  void operator()(int64_t b, int64_t e, int worker) const {
    found[worker] = this;
    for (int64_t i = b; i < e; ++i) sums[i] = std::accumulate(numbers.begin(), numbers.end(), i);
  }
};
template <int kNumbers>
std::vector<const void*> places(int rounds, bool* right) {
  std::vector<const void*> found(2);
  std::vector<int64_t> sums(64);
  Body<kNumbers> body{{}, found.data(), sums.data()};
  for (int round = 0; round < rounds; ++round) {
    for (int64_t n = 0; n < kNumbers; ++n) body.numbers[static_cast<size_t>(n)] = round * n;
    parallel_for(64, 1, body);
    for (int64_t i = 0; i < 64; ++i)
      *right = *right && sums[static_cast<size_t>(i)] == i + int64_t{round} * kNumbers * (kNumbers - 1) / 2;
  }
  for (const void*& place : found) place = place == &body ? nullptr : place;
  return found;
}

// Which threads then have in one place of their own, whatever the caller's stack does.
TEST(Parallel, ABodyOfPlainNumbersGoesWithItsJobUnlessItIsLarge) {
  const Threads set(2);
  bool right = true;
  while (!places<8>(1, &right)[1]) {  // until the helper comes to take a piece
  }
  EXPECT_EQ(places<8>(20000, &right)[0], nullptr);
  EXPECT_EQ(places<100>(2000, &right), std::vector<const void*>(2));
  EXPECT_TRUE(right);
}

TEST(Parallel, ABodyThatChangesIsNotCopied) {
  const Threads set(2);
  struct Counting {
    std::atomic<int64_t>* all;
    int64_t own = 0;
    void operator()(int64_t b, int64_t e) { *all += e - b, std::atomic_ref(own) = 1; }
  };
  std::atomic<int64_t> all{0};
  Counting body{&all};
  for (int round = 0; round < 1000; ++round) parallel_for(64, 1, body);
  EXPECT_EQ(all, 64000);
  EXPECT_EQ(body.own, 1);
  EXPECT_FALSE(detail::kSent<Counting>);
}

TEST(Parallel, SleepersAreWoken) {
  const Threads set(2);
  const auto rest = [](int64_t us) { std::this_thread::sleep_for(std::chrono::microseconds(us)); };
  for (int64_t round = 0; round < 300; ++round) {
    rest(round * 7 % 500);
    std::atomic<int> begun{0};
    parallel_for(2, 1, [&](int64_t b, int64_t) {
      for (++begun; begun < 2;) std::this_thread::yield();  // nobody does both
      rest(b == round % 2 ? round * 11 % 500 : 0);
    });
  }
}

TEST(Parallel, AForkedChildGetsItsOwnThreads) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer ends a forked child that starts threads";
#endif
  const Threads set(2);
  parallel_for(8, 1, [](int64_t, int64_t) {});
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int64_t> total{0};
    parallel_for(8, 1, [&](int64_t b, int64_t e) { total += e - b; });
    _exit(total == 8 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace sennit::parallel_test
