#pragma once
#include <cstddef>
#include <cstdint>

namespace sennit {

// Memory for tensors: 64-byte aligned blocks that are kept for reuse when freed, so that a loop that repeats its shapes
// asks the system for nothing after the first round. Blocks of 2 MiB and more ask for huge pages. Thread safe.
struct MemoryCounters {
  int64_t live = 0;      // bytes in tensors now
  int64_t peak = 0;      // the most `live` has been since the last reset_memory_peak()
  int64_t reserved = 0;  // bytes held from the system, used or kept for reuse
  int64_t system_allocations = 0;  // how often the system was asked
};
MemoryCounters memory_counters();
void reset_memory_peak();
void release_cached_memory();  // gives unused blocks back to the system

// The most bytes that may be held from the system; at first what this machine, or the control group that this process
// runs in, has. A tensor that would go past it throws Error, where the system would end the process once its pages are
// touched.
int64_t memory_limit();
void set_memory_limit(int64_t bytes);

// While one lives, new blocks come filled with NaN, fenced by canaries that are checked when the block is freed, and
// shifted so that they are aligned to no more than 4 bytes. For tests: reads of unset memory and writes past the end show.
class HostileMemory {
 public:
  HostileMemory();
  ~HostileMemory();
  HostileMemory(const HostileMemory&) = delete;
};

namespace detail {

// A reference-counted block; the bytes follow the header.
struct Block {
  void* data;
  int64_t bytes;  // as asked for
  int bin;
  bool hostile;
  int references;
  Block* next;  // in a free list
  void (*release)(void* owner);  // for memory that belongs to someone else (a mapped file)
  void* owner;
};

Block* allocate_block(int64_t bytes);
void* allocate_pooled(int64_t bytes);  // plain memory from the same pool, never hostile, 64-byte aligned
void free_pooled(void* p) noexcept;
Block* adopt_block(void* data, int64_t bytes, void (*release)(void*), void* owner);
void free_block(Block* block) noexcept;

inline void retain(Block* b) noexcept {
  if (b) __atomic_add_fetch(&b->references, 1, __ATOMIC_RELAXED);
}
inline void release(Block* b) noexcept {
  if (b && __atomic_sub_fetch(&b->references, 1, __ATOMIC_ACQ_REL) == 0) free_block(b);
}

}  // namespace detail
}  // namespace sennit
