#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace sennit {

// Memory of whole pages whose last byte no readable byte follows.
class Pages {
 public:
  explicit Pages(size_t bytes) : readable_((bytes + page() - 1) / page() * page()) {
    begin_ = static_cast<std::byte*>(
        mmap(nullptr, readable_ + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (begin_ == MAP_FAILED || mprotect(end(), page(), PROT_NONE) != 0) throw std::bad_alloc();
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { munmap(begin_, readable_ + page()); }

  std::byte* end() const { return begin_ + readable_; }

 private:
  static size_t page() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
  size_t readable_;
  std::byte* begin_;
};

// Floats at an address aligned to 4 bytes only, fenced by canaries; after every other one's last float is no memory, so
// that a load past it ends the test, too.
class Fenced {
 public:
  explicit Fenced(int64_t n, float fill = 0)
      : n_(n),
        after_(next()++ % 2 == 0 ? kFence : 0),
        pages_(std::make_unique<Pages>(4 * static_cast<size_t>(n + kFence + after_))) {
    std::fill_n(data() - kFence, kFence, kCanary);
    std::fill_n(data(), n, fill);
    std::fill_n(data() + n, after_, kCanary);
  }
  Fenced(const Fenced& other) : Fenced(other.n_) { std::copy_n(other.data(), n_, data()); }
  Fenced(Fenced&&) = default;
  Fenced& operator=(Fenced other) {
    std::swap(n_, other.n_), std::swap(after_, other.after_), std::swap(pages_, other.pages_);
    return *this;
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

  float* data() { return reinterpret_cast<float*>(pages_->end()) - after_ - n_; }
  const float* data() const { return reinterpret_cast<const float*>(pages_->end()) - after_ - n_; }
  int64_t size() const { return n_; }
  float* begin() { return data(); }
  float* end() { return data() + n_; }
  const float* begin() const { return data(); }
  const float* end() const { return data() + n_; }
  float& operator[](int64_t i) { return data()[i]; }
  float operator[](int64_t i) const { return data()[i]; }
  std::vector<double> doubles() const { return {begin(), end()}; }
  bool intact() const {
    const auto canaries = [](const float* x, int64_t n) { return std::count(x, x + n, kCanary) == n; };
    return canaries(data() - kFence, kFence) && canaries(end(), after_);
  }

 private:
  static constexpr int64_t kFence = 17;  // odd: a vector's width past the end is seen, and no vector is aligned
  static constexpr float kCanary = -12345.5f;
  static int64_t& next() {
    static int64_t n = 0;
    return n;
  }
  int64_t n_, after_;
  std::unique_ptr<Pages> pages_;
};

}  // namespace sennit
