#pragma once
#include <algorithm>
#include <atomic>

#include "base/parallel.h"
#include "tensor/tensor.h"

namespace sennit {

// Calls body(i, scratch) for i in [0, n), one after another to whichever of the threads is free, of which there are
// thread_count() or as many as `most` says. Each has its own piece of scratch, made before any starts: what the
// allocator must hold then does not hang on how threads overlap.
template <class Body>
void each_with_scratch(int64_t n, int64_t scratch_floats, Body&& body, int64_t most = 1 << 20) {
  const int64_t workers = std::min<int64_t>({thread_count(), n, most});
  Tensor scratch({workers, scratch_floats});
  std::atomic<int64_t> next{0};
  parallel_for(workers, 1, [&](int64_t b, int64_t e) {
    for (int64_t w = b; w < e; ++w)
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n;)
        body(i, scratch.data() + w * scratch_floats);
  });
}

}  // namespace sennit
