#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace sennit {

// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): four 32-bit words for each
// (key, counter), with no state between calls.
std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_high, uint64_t counter_low);

// A stream of random numbers addressed by position, so that draws do not depend on the order or the thread in which
// they are made. Streams of different names are independent.
class Rng {
 public:
  explicit Rng(uint64_t seed = 0, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  Rng fork(std::string_view name) const;  // the stream `name` below this one
  Rng fork(uint64_t number) const;

  // The number at a position.
  uint64_t bits_at(uint64_t i) const;
  double uniform_at(uint64_t i) const;  // [0, 1)
  double normal_at(uint64_t i) const;

  // The next number.
  uint64_t bits() { return bits_at(next_++); }
  double uniform() { return uniform_at(next_++); }
  double normal() { return normal_at(next_++); }
  int64_t below(int64_t n);  // uniform in [0, n)

  uint64_t seed() const { return seed_; }
  uint64_t stream() const { return stream_; }
  uint64_t position() const { return next_; }
  void seek(uint64_t position) { next_ = position; }

 private:
  uint64_t seed_, stream_, next_ = 0;
};

uint64_t hash64(std::string_view text);  // FNV-1a

}  // namespace sennit
