#pragma once
#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"

namespace sennit {

// A recurrent cell of each head, token by token, over all segments: x [N, H gates dim] are the inputs of the gates, r
// [H dim, gates dim] what is fed back. A Kind has gates(), states(), table(), and task(x, x_stride, r, length, dim).
// -> h [N, H dim]; state [H, states, dim].
template <class Kind>
struct Cells {
  Kind kind;
  Tensor x, r;
  int64_t heads;
  Pooled<Segment> segments;

  int64_t dim() const { return r.rows() / heads; }
  int64_t state_size() const { return kind.states() * dim(); }
  int64_t matrix_size() const { return dim() * kind.gates() * dim(); }
  auto task(int64_t segment, int64_t head) const {
    const Segment& s = segments[segment];
    return kind.task(x.data() + s.begin * x.row_size() + head * kind.gates() * dim(), x.row_size(),
                     r.data() + head * matrix_size(), s.length, dim());
  }

  void backward(const Tensor& dy, Tensor& dx, Tensor& dr, Carry& kept) const {
    // A head's matrix gathers from all segments: one thread, in order.
    parallel_for(heads, 1, [&](int64_t b, int64_t e) {
      int64_t need = 0;
      for (int64_t i = 0; i < std::ssize(segments); ++i)
        need = std::max(need, kind.table().backward_scratch_floats(task(i, 0)));
      Tensor scratch({need});
      for (int64_t head = b; head < e; ++head)
        for (int64_t i = 0; i < std::ssize(segments); ++i) {
          const auto t = task(i, head);
          const int64_t at = head * state_size(), row = segments[i].begin;
          kind.table().backward(t, moved(kept.in(i), at), dy.data() + row * dy.row_size() + head * dim(), dy.row_size(),
                                moved(kept.d_out(i), at), dx.data() + (t.x - x.data()),
                                dr.data() + head * matrix_size(), moved(kept.d_in(i), at), scratch.data());
        }
    });
  }
};

template <class Kind>
Var run_cells(const Kind& kind, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field) {
  Cells<Kind> cells{kind, x.value(), r.value(), heads, {batch.segments.begin(), batch.segments.end()}};
  const int64_t dim = cells.dim(), width = heads * dim;
  SENNIT_CHECK(x.columns() == kind.gates() * width && r.columns() == kind.gates() * dim, "cells: {} and {}",
               x.shape().str(), r.shape().str());
  Carry carry(batch, field, {heads, kind.states(), dim});
  Tensor y({x.rows(), width});
  const int64_t flops = x.rows() * width * kind.gates() * (2 * dim + 8);
  count_flops(flops);
  each_head(
      std::ssize(cells.segments), heads, [&](int64_t i, int64_t head) { return cells.task(i, head); },
      kind.table().scratch_floats,
      [&](int64_t i, int64_t head, const auto& task, float* scratch) {
        const int64_t at = head * cells.state_size();
        kind.table().forward(task, moved(carry.in(i), at), carry.out(i) + at,
                             y.data() + cells.segments[i].begin * width + head * dim, width, scratch);
      });
  return carry.record(batch, std::move(y), {x, r}, [cells, flops](const Tensor& dy, Gradients& into, Carry& kept) {
    Tensor &dx = into.sum(0), &dr = into.sum(1);
    count_flops(3 * flops);
    cells.backward(dy, dx, dr, kept);
  });
}

}  // namespace sennit
