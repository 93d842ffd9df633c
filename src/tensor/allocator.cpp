#include "tensor/allocator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <new>

#include "base/error.h"

namespace sennit {
namespace {

constexpr int64_t kAlign = 64, kHugePage = 2 << 20;
constexpr int64_t kHeader = kAlign * ((sizeof(detail::Block) + kAlign - 1) / kAlign);
// Large blocks would all begin at one place of a huge page, and the same row of many tensors would lie in one set of a
// cache. So each begins some lines, and a page, further on than the last.
constexpr int64_t kStagger = 68 * kAlign, kPlaces = 16;
constexpr int64_t kFence = 64, kShift = 4;
constexpr uint32_t kCanary = 0x7fc0dead;  // a NaN that no arithmetic makes
constexpr int kBins = 4 * 48;

// Four sizes an octave: at most a quarter of a block is slack.
int bin_of(int64_t bytes) {
  const uint64_t units = std::max<int64_t>(4, (bytes + kAlign - 1) / kAlign);
  const int octave = std::bit_width(units - 1) - 1;
  const uint64_t step = octave >= 2 ? uint64_t{1} << (octave - 2) : 1;
  const uint64_t base = uint64_t{1} << octave;
  return 4 * octave + static_cast<int>((units - base + step - 1) / step);
}

int64_t bin_bytes(int bin) {
  const int octave = bin / 4, quarter = bin % 4;
  const uint64_t base = uint64_t{1} << octave;
  return static_cast<int64_t>(base + quarter * std::max<uint64_t>(1, base / 4)) * kAlign;
}

int64_t machine_memory() {
  int64_t bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE), group = 0;
  if (std::ifstream file("/sys/fs/cgroup/memory.max"); file >> group && group > 0) bytes = std::min(bytes, group);
  return bytes;
}

struct Pool {
  std::mutex mutex;
  int64_t limit = machine_memory();
  std::array<detail::Block*, kBins + 8> free{};
  MemoryCounters counters;
  int hostile = 0;
};

Pool& pool() {
  static Pool* p = new Pool;  // outlives every static tensor
  return *p;
}

bool is_large(int bin) { return kHeader + bin_bytes(bin) >= kHugePage; }

// What the system gave for a block.
void* system_start(detail::Block* b) {
  auto* p = reinterpret_cast<std::byte*>(b);
  return is_large(b->bin) ? p - reinterpret_cast<uintptr_t>(p) % kHugePage : p;
}

void release_free_blocks(Pool& p) {
  for (auto& list : p.free) {
    while (detail::Block* b = list) {
      list = b->next;
      p.counters.reserved -= bin_bytes(b->bin);
      std::free(system_start(b));
    }
  }
}

void check_limit(Pool& p, int64_t bytes) {
  if (bytes <= p.limit - p.counters.reserved) return;
  release_free_blocks(p);
  if (bytes > p.limit - p.counters.reserved)
    fail({"memory", fmt::format("at most {:.1f} GB for tensors", static_cast<double>(p.limit) / 1e9),
          fmt::format("{:.1f} GB in use and {:.1f} GB asked for", static_cast<double>(p.counters.reserved) / 1e9, static_cast<double>(bytes) / 1e9), ""});
}

detail::Block* from_system(int bin, int64_t nth) {
  const bool large = is_large(bin);
  const int64_t shift = large ? nth % kPlaces * kStagger : 0, size = shift + kHeader + bin_bytes(bin);
  const int64_t alignment = large ? kHugePage : kAlign;
  void* raw = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!raw) fail({"memory", fmt::format("{} bytes", size), "the system has none left", ""});
  if (large) madvise(raw, size, MADV_HUGEPAGE);
  auto* b = new (static_cast<std::byte*>(raw) + shift) detail::Block{};
  b->bin = bin;
  return b;
}

void fill_hostile(detail::Block* b) {
  auto* base = reinterpret_cast<std::byte*>(b) + kHeader;
  const int64_t total = 2 * kFence + kShift + (b->bytes + 3) / 4 * 4;
  for (int64_t i = 0; i + 4 <= total; i += 4) std::memcpy(base + i, &kCanary, 4);
  b->data = base + kFence + kShift;
}

bool fences_hold(const detail::Block* b) {
  const auto* base = reinterpret_cast<const std::byte*>(b) + kHeader;
  auto holds = [](const std::byte* p, int64_t n) {
    for (int64_t i = 0; i + 4 <= n; i += 4)
      if (std::memcmp(p + i, &kCanary, 4) != 0) return false;
    return true;
  };
  return holds(base, kFence + kShift) && holds(base + kFence + kShift + (b->bytes + 3) / 4 * 4, kFence);
}

detail::Block* take_block(int64_t bytes, bool may_be_hostile) {
  SENNIT_CHECK(bytes >= 0 && bytes < (int64_t{1} << 46), "{} bytes", bytes);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  const bool hostile = may_be_hostile && p.hostile > 0;
  const int bin = bin_of(bytes + (hostile ? 2 * kFence + kShift + 4 : 0));
  detail::Block* b = p.free[bin];
  if (b) {
    p.free[bin] = b->next;
  } else {
    check_limit(p, bin_bytes(bin));
    b = from_system(bin, p.counters.system_allocations);
    p.counters.reserved += bin_bytes(bin);
    ++p.counters.system_allocations;
  }
  b->bytes = bytes;
  b->references = 1;
  b->hostile = hostile;
  b->release = nullptr;
  b->data = reinterpret_cast<std::byte*>(b) + kHeader;
  if (hostile) fill_hostile(b);
  p.counters.live += bytes;
  p.counters.peak = std::max(p.counters.peak, p.counters.live);
  return b;
}

}  // namespace

MemoryCounters memory_counters() {
  std::lock_guard lock(pool().mutex);
  return pool().counters;
}

void reset_memory_peak() {
  std::lock_guard lock(pool().mutex);
  pool().counters.peak = pool().counters.live;
}

void release_cached_memory() {
  std::lock_guard lock(pool().mutex);
  release_free_blocks(pool());
}

int64_t memory_limit() {
  std::lock_guard lock(pool().mutex);
  return pool().limit;
}

void set_memory_limit(int64_t bytes) {
  std::lock_guard lock(pool().mutex);
  pool().limit = bytes;
}

HostileMemory::HostileMemory() {
  std::lock_guard lock(pool().mutex);
  ++pool().hostile;
}

HostileMemory::~HostileMemory() {
  std::lock_guard lock(pool().mutex);
  --pool().hostile;
}

detail::Block* detail::allocate_block(int64_t bytes) { return take_block(bytes, true); }

void* detail::allocate_pooled(int64_t bytes) { return take_block(bytes, false)->data; }

void detail::free_pooled(void* p) noexcept { free_block(reinterpret_cast<Block*>(static_cast<std::byte*>(p) - kHeader)); }

detail::Block* detail::adopt_block(void* data, int64_t bytes, void (*release)(void*), void* owner) {
  return new Block{.data = data, .bytes = bytes, .bin = -1, .hostile = false, .references = 1, .next = nullptr,
                   .release = release, .owner = owner};
}

void detail::free_block(Block* b) noexcept {
  if (b->bin < 0) {
    if (b->release) b->release(b->owner);
    delete b;
    return;
  }
  if (b->hostile && !fences_hold(b)) {
    std::fputs("tensor memory: a write went past the end of a block\n", stderr);
    std::abort();  // the test allocator's verdict; never reached outside tests
  }
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.counters.live -= b->bytes;
  b->next = p.free[b->bin];
  p.free[b->bin] = b;
}

}  // namespace sennit
