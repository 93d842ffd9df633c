#pragma once
#include <vector>

#include "tensor/allocator.h"

namespace sennit {

// Memory for arrays that are made and dropped on every call, from the pool of tensors: after the first round a loop
// asks the system for nothing.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(detail::allocate_pooled(static_cast<int64_t>(n * sizeof(T)))); }
  void deallocate(T* p, size_t) noexcept { detail::free_pooled(p); }
  bool operator==(const PoolAllocator&) const { return true; }
};

template <class T>
using Pooled = std::vector<T, PoolAllocator<T>>;

}  // namespace sennit
