#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/rng.h"

namespace sennit::data {

Permutation::Permutation(int64_t n, uint64_t seed, uint64_t stream)
    : n_(n),
      seed_(seed),
      stream_(stream),
      half_bits_(std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(n - 1)) + 1) / 2)) {
  SENNIT_CHECK(n >= 1 && n < (int64_t{1} << 48), "{} elements", n);
}

uint64_t Permutation::encrypt(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_, right = value & mask;
  for (uint64_t round = 0; round < 6; ++round) {
    const uint64_t mixed = philox(seed_, stream_, (right << 3) | round)[0] & mask;
    const uint64_t next = left ^ mixed;
    left = right, right = next;
  }
  return (left << half_bits_) | right;
}

int64_t Permutation::operator()(int64_t index) const {
  SENNIT_CHECK(index >= 0 && index < n_, "{} of {}", index, n_);
  uint64_t value = static_cast<uint64_t>(index);
  do value = encrypt(value);
  while (value >= static_cast<uint64_t>(n_));
  return static_cast<int64_t>(value);
}

}  // namespace sennit::data
