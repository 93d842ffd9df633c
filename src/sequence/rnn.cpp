#include "sequence/rnn.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

struct Core {
  RnnCell cell;
  Tensor x, r;
  int64_t heads;
  Pooled<Segment> segments;

  int64_t gates() const { return kernels::rnn_gates(cell); }
  int64_t dim() const { return r.rows() / heads; }
  int64_t state_size() const { return kernels::rnn_states(cell) * dim(); }
  int64_t matrix_size() const { return dim() * gates() * dim(); }
  kernels::RnnTask task(int64_t segment, int64_t head) const {
    const Segment& s = segments[segment];
    return {.cell = cell,
            .x = x.data() + s.begin * x.row_size() + head * gates() * dim(),
            .r = r.data() + head * matrix_size(),
            .x_stride = x.row_size(),
            .length = s.length,
            .dim = dim()};
  }
};

}  // namespace

Var rnn(RnnCell cell, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field) {
  Core core{cell, x.value(), r.value(), heads, {batch.segments.begin(), batch.segments.end()}};
  const int64_t dim = core.dim(), width = heads * dim;
  SENNIT_CHECK(x.columns() == core.gates() * width && r.columns() == core.gates() * dim, "rnn: {} and {}",
               x.shape().str(), r.shape().str());
  Carry carry(batch, field, {heads, kernels::rnn_states(cell), dim});
  Tensor y({x.rows(), width});
  const int64_t flops = x.rows() * width * core.gates() * (2 * dim + 8);
  count_flops(flops);
  each_head(
      std::ssize(core.segments), heads, [&](int64_t i, int64_t head) { return core.task(i, head); },
      kernels::rnn().scratch_floats,
      [&](int64_t i, int64_t head, const auto& task, float* scratch) {
        const int64_t at = head * core.state_size();
        kernels::rnn().forward(task, moved(carry.in(i), at), carry.out(i) + at,
                               y.data() + core.segments[i].begin * width + head * dim, width, scratch);
      });
  return carry.record(batch, std::move(y), {x, r}, [core, flops](const Tensor& dy, Gradients& into, Carry& kept) {
    Tensor &dx = into.sum(0), &dr = into.sum(1);
    count_flops(3 * flops);
    // A head's matrix gathers from all segments: one thread, in order.
    parallel_for(core.heads, 1, [&](int64_t b, int64_t e) {
      int64_t need = 0;
      for (int64_t i = 0; i < std::ssize(core.segments); ++i)
        need = std::max(need, kernels::rnn().backward_scratch_floats(core.task(i, 0)));
      Tensor scratch({need});
      for (int64_t head = b; head < e; ++head)
        for (int64_t i = 0; i < std::ssize(core.segments); ++i) {
          const auto task = core.task(i, head);
          const int64_t at = head * core.state_size(), row = core.segments[i].begin;
          kernels::rnn().backward(task, moved(kept.in(i), at), dy.data() + row * dy.row_size() + head * core.dim(),
                                  dy.row_size(), moved(kept.d_out(i), at), dx.data() + (task.x - core.x.data()),
                                  dr.data() + head * core.matrix_size(), moved(kept.d_in(i), at), scratch.data());
        }
    });
  });
}

}  // namespace sennit
