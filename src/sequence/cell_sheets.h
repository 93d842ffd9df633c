#pragma once
#include <algorithm>

#include "base/parallel.h"
#include "kernels/feedback.h"
#include "sequence/cells.h"
#include "sequence/steps.h"

namespace sennit {

// What a thread does of a step: every `stride`-th sequence from `first`, channels [begin, end) of a head.
struct CellShare {
  int64_t head, first, stride, begin, end;
  int64_t rows(int64_t width) const { return width > first ? (width - first + stride - 1) / stride : 0; }
};

// What the loop of a recurrent cell writes down. With `all`, that of every token, for the way back: step after step,
// and in a step a row a sequence. Else that of the step at hand and of the one before.
class CellSheets {
 public:
  CellSheets(const CellKind& k, int64_t h, int64_t d, std::span<const Segment> s, bool every)
      : kind(k), heads(h), dim(d), segments(s.begin(), s.end()), steps(s), all(every) {
    const int64_t rows = heads * (all ? steps.tokens() : steps.sequences());
    sheets_ = Tensor({rows * (kept_size() + (all ? 1 : 2) * state_size())});
    kept_ = sheets_.data(), states_ = kept_ + rows * kept_size();
  }
  int64_t gates_size() const { return kind.gates * dim; }
  int64_t kept_size() const { return kind.kept * dim; }
  int64_t state_size() const { return kind.states * dim; }
  int64_t matrix_size() const { return kind.gates * dim * dim; }
  const Segment& segment(int64_t sequence) const { return segments[static_cast<size_t>(steps.segment(sequence))]; }

  // Of token t of a sequence: what is kept of it, and the states before it.
  float* kept(int64_t head, int64_t t, int64_t sequence) const {
    const int64_t row = all ? head * steps.tokens() + steps.first(t) : head * steps.sequences();
    return kept_ + (row + sequence) * kept_size();
  }
  float* before(int64_t head, int64_t t, int64_t sequence) const {
    const int64_t row = all ? head * steps.tokens() + steps.first(t) : (2 * head + t % 2) * steps.sequences();
    return states_ + (row + sequence) * state_size();
  }

  // Sequences and heads are dealt to threads where the matrix is small, so that nobody waits; else the channels, so
  // that a core reads its part of the matrix again and again.
  bool threads_share_channels() const {
    constexpr int64_t kPrivate = 1 << 17, kShared = 1 << 15;  // floats that a core keeps near; that are worth waiting
    const int64_t threads = thread_count();
    return std::min(threads, panels()) > 1 &&
           matrix_size() > (heads * steps.sequences() < threads ? kShared : kPrivate);
  }

  // Calls body(share, stage) for each stage of every head, shared among threads: with all that a share reads of the
  // stage before done.
  template <class Body>
  void deal(bool channels, int64_t stages, Body&& body) const {
    const int64_t threads = thread_count();
    if (channels) {
      const int64_t parts = std::min(threads, panels());
      for (int64_t head = 0; head < heads; ++head)
        for (int64_t stage = 0; stage < stages; ++stage)
          parallel_for(parts, 1, [&](int64_t b, int64_t e) {
            const auto channel = [&](int64_t part) {
              return std::min(dim, panels() * part / parts * kernels::feedback().columns);
            };
            body(CellShare{head, 0, 1, channel(b), channel(e)}, stage);
          });
      return;
    }
    int64_t groups = 1;
    while (groups < steps.sequences() && heads * groups % threads && heads * groups < 4 * threads) ++groups;
    parallel_for(heads * groups, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i)
        for (int64_t stage = 0; stage < stages; ++stage) body(CellShare{i / groups, i % groups, groups, 0, dim}, stage);
    });
  }

  CellKind kind;
  int64_t heads, dim;
  Pooled<Segment> segments;
  Steps steps;
  bool all;

 private:
  int64_t panels() const { return (dim + kernels::feedback().columns - 1) / kernels::feedback().columns; }

  Tensor sheets_;
  float *kept_, *states_;  // [heads, rows, kept dim], [heads, rows, states dim]
};

// How many columns are multiplied at once by m rows: four panels side by side by one, which would wait for its sums.
inline int64_t sweep_columns(int64_t m) {
  return kernels::feedback().columns * (m > 1 ? 2 : 4);
}

// Calls body(matrix, column, columns) for the columns [begin, end) of n matrices, a `unit` at a time, and backwards in
// every other step: what a core read last is what it still has near.
template <class Body>
void sweep(int64_t n, int64_t begin, int64_t end, int64_t unit, int64_t step, Body&& body) {
  const int64_t each = (end - begin + unit - 1) / unit, units = n * each;
  for (int64_t u = 0; u < units; ++u) {
    const int64_t i = step % 2 ? units - 1 - u : u, at = begin + i % each * unit;
    body(i / each, at, std::min(unit, end - at));
  }
}

}  // namespace sennit
