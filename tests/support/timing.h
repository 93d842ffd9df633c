#pragma once
#include <algorithm>
#include <chrono>
#include <vector>

namespace sennit {

// The shortest of `rounds` runs, in seconds: what else the machine does only adds.
template <class Body>
double seconds_of(int rounds, Body&& body) {
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    body();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

// Times two bodies in turn, `rounds` times each, so that both meet the same machine: their medians, and their shortest
// runs.
struct Seconds {
  double first, second;
};
template <class First, class Second>
Seconds medians_in_turn(int rounds, First&& first, Second&& second) {
  std::vector<double> a, b;
  for (int i = 0; i < rounds; ++i) {
    a.push_back(seconds_of(1, first));
    b.push_back(seconds_of(1, second));
  }
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return {a[a.size() / 2], b[b.size() / 2]};
}
template <class First, class Second>
Seconds least_in_turn(int rounds, First&& first, Second&& second) {
  Seconds least{1e30, 1e30};
  for (int i = 0; i < rounds; ++i)
    least = {std::min(least.first, seconds_of(1, first)), std::min(least.second, seconds_of(1, second))};
  return least;
}

}  // namespace sennit
