#pragma once
#include <bit>
#include <cstdint>
#include <random>
#include <vector>

namespace sennit::tokenizers {

// Merges of byte-pair encoding by their two halves: a hash table with open addressing. The factor of the hash is drawn
// anew in each process, so that nobody can prepare a vocabulary whose pairs collide.
class PairTable {
 public:
  struct Merge {
    uint32_t rank = UINT32_MAX;  // UINT32_MAX: not a merge
    int32_t id = -1;
  };

  void reserve(size_t pairs) {
    const size_t slots = std::bit_ceil(2 * pairs + 2);
    slots_.assign(slots, {});
    shift_ = 64 - std::countr_zero(slots);
  }
  // The last merge given for a pair counts.
  void set(int32_t left, int32_t right, Merge merge) { at(key(left, right)) = {key(left, right), merge}; }
  Merge find(int32_t left, int32_t right) const { return const_cast<PairTable&>(*this).at(key(left, right)).merge; }

 private:
  struct Slot {
    uint64_t key = UINT64_MAX;
    Merge merge;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  Slot& at(uint64_t key) {
    static const uint64_t factor = std::random_device()() * 0x100000001ull + (std::random_device()() | 1);
    size_t i = key * (factor | 1) >> shift_;
    while (slots_[i].key != key && slots_[i].key != UINT64_MAX) i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }

  std::vector<Slot> slots_;
  int shift_ = 63;
};

}  // namespace sennit::tokenizers
