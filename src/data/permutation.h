#pragma once
#include <cstdint>

namespace sennit::data {

// A seeded permutation of [0, n), computed index by index: a balanced Feistel network over the next even power of two
// whose rounds are Philox, walked until the value falls below n (Black & Rogaway, "Ciphers with arbitrary finite
// domains", 2002). No list is stored, so any position of a shuffled order costs the same.
class Permutation {
 public:
  Permutation(int64_t n, uint64_t seed, uint64_t stream);
  int64_t operator()(int64_t index) const;

 private:
  uint64_t encrypt(uint64_t value) const;
  int64_t n_;
  uint64_t seed_, stream_;
  int half_bits_;
};

}  // namespace sennit::data
