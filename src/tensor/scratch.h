#pragma once
#include <algorithm>
#include <type_traits>

#include "base/parallel.h"
#include "tensor/tensor.h"

namespace sennit {

namespace detail {
// A body within another: as it is where threads may have copies of it.
template <class Body>
using Held = std::conditional_t<std::is_trivially_copyable_v<Body>, const Body, Body&>;

template <class Body>
struct WithScratch {
  int64_t n, runs, floats;
  float* scratch;
  Held<Body> body;
};
}  // namespace detail

// Calls body(i, scratch) for i in [0, n), on as many threads as there are, or as `most` says: each begins with its own
// neighbours among them, and then takes what others left. Each thread has its own piece of scratch, made before any
// starts: what the allocator must hold then does not hang on how threads overlap.
template <class Body>
void each_with_scratch(int64_t n, int64_t scratch_floats, Body&& body, int64_t most = 1 << 20) {
  const int64_t workers = std::min<int64_t>({thread_count(), n, most});
  Tensor scratch({workers, scratch_floats});
  const detail::WithScratch<std::remove_reference_t<Body>> x{n, workers, scratch_floats, scratch.data(), body};
  parallel_for(
      n, 1,
      [x](int64_t b, int64_t e, int worker) {
        for (int64_t i = b; i < e; ++i) x.body(i, x.scratch + worker * x.floats);
      },
      workers);
}

// The same in as many runs of equal length as there are threads, for what is alike or so short that to help another
// thread costs more than it gains. Each run has its own piece of scratch.
template <class Body>
void equal_runs_with_scratch(int64_t n, int64_t scratch_floats, Body&& body) {
  const int64_t runs = std::min<int64_t>(thread_count(), n);
  Tensor scratch({runs, scratch_floats});
  const detail::WithScratch<std::remove_reference_t<Body>> x{n, runs, scratch_floats, scratch.data(), body};
  parallel_for(runs, 1, [x](int64_t b, int64_t e) {
    for (int64_t run = b; run < e; ++run)
      for (int64_t i = x.n * run / x.runs; i < x.n * (run + 1) / x.runs; ++i) x.body(i, x.scratch + run * x.floats);
  });
}

}  // namespace sennit
