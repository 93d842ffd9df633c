#pragma once
#include <algorithm>

#include "base/parallel.h"
#include "tensor/tensor.h"

namespace sennit {

// Calls body(i, scratch) for i in [0, n), dealt in turn to as many threads as there are, or as `most` says, so that
// work that grows with i is shared evenly. Each thread has its own piece of scratch, made before any starts: what the
// allocator must hold then does not hang on how threads overlap.
template <class Body>
void each_with_scratch(int64_t n, int64_t scratch_floats, Body&& body, int64_t most = 1 << 20) {
  const int64_t workers = std::min<int64_t>({thread_count(), n, most});
  Tensor scratch({workers, scratch_floats});
  parallel_for(workers, 1, [&](int64_t b, int64_t e) {
    for (int64_t w = b; w < e; ++w)
      for (int64_t i = w; i < n; i += workers) body(i, scratch.data() + w * scratch_floats);
  });
}

}  // namespace sennit
