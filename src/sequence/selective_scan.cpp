#include "kernels/selective_scan.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "ops/row_blocks.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

constexpr int64_t kSelectiveChannels = 128;  // a task's share, whatever the threads

struct SelectiveCore {
  Tensor x, dt, a, b, c, d;
  Pooled<Segment> segments;

  int64_t channels() const { return x.row_size(); }
  int64_t states() const { return a.row_size(); }
  int64_t shares() const { return (channels() + kSelectiveChannels - 1) / kSelectiveChannels; }
  kernels::SelectiveScanTask task(int64_t segment) const {
    const Segment& s = segments[segment];
    return {.x = x.data() + s.begin * channels(),
            .dt = dt.data() + s.begin * channels(),
            .a = a.data(),
            .b = b.data() + s.begin * states(),
            .c = c.data() + s.begin * states(),
            .d = d.data(),
            .x_stride = channels(),
            .dt_stride = channels(),
            .b_stride = states(),
            .c_stride = states(),
            .length = s.length,
            .states = states(),
            .begin = 0,
            .end = std::min(kSelectiveChannels, channels())};
  }
};

// What the shares of a segment work on.
struct SelectivePart {
  kernels::SelectiveScanTask task;  // of the first share
  const float* h0;
  float *h_end, *y;

  kernels::SelectiveScanTask of_share(int64_t share) const {
    return task.of_channels(share * kSelectiveChannels, std::min((share + 1) * kSelectiveChannels, task.x_stride));
  }
};

// dx, ddt and the states belong to a share's own channels; what all segments or all shares add into is kept apart for
// each task and summed in order afterwards.
void scan_backward(const SelectiveCore& core, const Tensor& dy, Gradients& into, Carry& kept) {
  kernels::Sum d[2];  // of x and dt
  into.sums(d);
  Tensor &da = into.sum(2), &db = into.sum(3), &dc = into.sum(4), &dd = into.sum(5);
  const int64_t segments = std::ssize(core.segments), shares = core.shares(), rows = core.x.rows();
  Tensor das = Tensor::zeros({segments, core.channels(), core.states()}), dds = Tensor::zeros({segments, core.channels()});
  Tensor dbs = Tensor::zeros({shares, rows, core.states()}), dcs = Tensor::zeros({shares, rows, core.states()});
  Pooled<SelectivePart> parts;
  for (int64_t i = 0; i < segments; ++i) parts.push_back({core.task(i), kept.in(i), nullptr, nullptr});
  each_head(parts, shares, kernels::selective_scan().backward_scratch_floats, [&](const SelectivePart& part, int64_t at_share, float* scratch) {
    const int64_t i = at_share / shares, share = at_share % shares, begin = core.segments[i].begin, row = begin * core.channels(), at = (share * rows + begin) * core.states();
    kernels::selective_scan().backward(part.of_share(share), part.h0, dy.data() + row, core.channels(), kept.d_out(i),
                                       {.dx = d[0].from(row), .ddt = d[1].from(row), .da = das.data() + i * core.channels() * core.states(),
                                        .db = dbs.data() + at, .dc = dcs.data() + at, .dd = dds.data() + i * core.channels(), .dh0 = kept.d_in(i)},
                                       scratch);
  });
  add_blocks(das, da), add_blocks(dds, dd), add_blocks(dbs, db), add_blocks(dcs, dc);
}

}  // namespace

Var selective_scan(const SelectiveScanInputs& in, const Batch& batch, size_t field) {
  SENNIT_CHECK(in.x.shape() == in.dt.shape() && in.b.shape() == in.c.shape() && in.a.rows() == in.x.columns() && in.a.columns() > 0 && in.b.columns() == in.a.columns(),
               "selective_scan: x {}, A {}, B {}", in.x.shape().str(), in.a.shape().str(), in.b.shape().str());
  SelectiveCore core{in.x.value(), in.dt.value(), in.a.value(), in.b.value(), in.c.value(), in.d.value(), {batch.segments.begin(), batch.segments.end()}};
  Carry carry(batch, field, {core.channels(), core.states()});
  Tensor y(in.x.shape());
  count_flops(7 * y.elements() * core.states());
  Pooled<SelectivePart> parts;
  for (int64_t i = 0; i < std::ssize(core.segments); ++i)
    parts.push_back({core.task(i), carry.in(i), carry.out(i), y.data() + core.segments[i].begin * core.channels()});
  each_head(parts, core.shares(), kernels::selective_scan().scratch_floats, [shares = core.shares()](const SelectivePart& part, int64_t at, float* scratch) {
    kernels::selective_scan().forward(part.of_share(at % shares), part.h0, part.h_end, part.y, part.task.x_stride, scratch);
  });
  return carry.record(batch, std::move(y), {in.x, in.dt, in.a, in.b, in.c, in.d}, [core](const Tensor& dy, Gradients& into, Carry& kept) {
    count_flops(20 * dy.elements() * core.states());
    scan_backward(core, dy, into, kept);
  });
}

}  // namespace sennit
