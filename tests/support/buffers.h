#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/rng.h"

namespace sennit {

// Floats at an address aligned to 4 bytes only, fenced by canaries.
class Fenced {
 public:
  explicit Fenced(int64_t n, float fill = 0) : n_(n), all_(static_cast<size_t>(n + 2 * kFence), kCanary) {
    std::fill_n(data(), n, fill);
  }
  static Fenced normal(Rng& rng, int64_t n, double scale = 1) {
    Fenced f(n);
    for (float& v : f) v = static_cast<float>(scale * rng.normal());
    return f;
  }
  static Fenced uniform(Rng& rng, int64_t n, double low, double high) {
    Fenced f(n);
    for (float& v : f) v = static_cast<float>(low + (high - low) * rng.uniform());
    return f;
  }

  float* data() { return all_.data() + kFence; }
  const float* data() const { return all_.data() + kFence; }
  int64_t size() const { return n_; }
  float* begin() { return data(); }
  float* end() { return data() + n_; }
  const float* begin() const { return data(); }
  const float* end() const { return data() + n_; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }
  std::vector<double> doubles() const { return {begin(), end()}; }
  bool intact() const {
    auto canary = [](float v) { return v == kCanary; };
    return std::all_of(all_.begin(), all_.begin() + kFence, canary) &&
           std::all_of(all_.end() - kFence, all_.end(), canary);
  }

 private:
  static constexpr int64_t kFence = 17;  // odd: a vector's width past the end is seen, and no vector is aligned
  static constexpr float kCanary = -12345.5f;
  int64_t n_;
  std::vector<float> all_;
};

}  // namespace sennit
