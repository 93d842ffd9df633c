#pragma once
#include <algorithm>
#include <chrono>

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

}  // namespace sennit
