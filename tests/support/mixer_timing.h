#pragma once
#include <ctime>

#include "base/parallel.h"
#include "support/mixers.h"

// How the time of a mixer grows: processor time of one thread, for others may use the machine too, in turn, so that
// both sides meet the same caches and clock.
namespace sennit {

template <class First, class Second>
double processor_ratio(int rounds, First&& first, Second&& second) {  // of the medians
  const int threads = thread_count();
  set_thread_count(1);
  const auto seconds = [](auto&& body) {
    const auto now = [] {
      timespec t;
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
      return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    };
    const double start = now();
    body();
    return now() - start;
  };
  std::vector<double> a, b;
  for (int i = 0; i < rounds; ++i) a.push_back(seconds(first)), b.push_back(seconds(second));
  set_thread_count(threads);
  std::sort(a.begin(), a.end()), std::sort(b.begin(), b.end());
  return a[a.size() / 2] / b[b.size() / 2];
}

// Time of a forward pass over `large` tokens as a multiple of that over `small` ones.
inline double time_ratio(const Json& part, int64_t d_model, int64_t large, int64_t small,
                         Pattern pattern = Pattern::causal) {
  auto mixer = make_mixer(part, d_model);
  const Tensor a = normal_rows(large, d_model, 1), b = normal_rows(small, d_model, 2);
  const auto run = [&](const Tensor& x) { return [&] { run_alone(*mixer, x, nullptr, pattern); }; };
  return processor_ratio(7, run(a), run(b));
}

// Time of a token after `late` others as a multiple of that after `early` ones.
inline double step_ratio(const Json& part, int64_t d_model, int64_t late, int64_t early) {
  auto mixer = make_mixer(part, d_model);
  SequenceState after_late, after_early;
  run_alone(*mixer, normal_rows(late, d_model, 1), &after_late);
  run_alone(*mixer, normal_rows(early, d_model, 2), &after_early);
  const Tensor token = normal_rows(1, d_model, 3);
  const auto steps = [&](SequenceState& state) {
    return [&] {
      for (int i = 0; i < 50; ++i) run_alone(*mixer, token, &state);
    };
  };
  return processor_ratio(31, steps(after_late), steps(after_early));
}

// Time of one mixer's forward pass as a multiple of another's, over the same tokens.
inline double time_against(const Json& part, const Json& other, int64_t d_model, int64_t n,
                           Pattern pattern = Pattern::causal) {
  auto a = make_mixer(part, d_model), b = make_mixer(other, d_model);
  const Tensor x = normal_rows(n, d_model, 1);
  const auto run = [&](Mixer& mixer) { return [&] { run_alone(mixer, x, nullptr, pattern); }; };
  return processor_ratio(5, run(*a), run(*b));
}

}  // namespace sennit
