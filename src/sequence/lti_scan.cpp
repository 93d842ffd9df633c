#include "kernels/lti_scan.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

constexpr int64_t kLtiChannels = 16;  // a task's share

struct LtiCore {
  Tensor u, a, b;
  Pooled<Segment> segments;

  int64_t channels() const { return u.row_size(); }
  int64_t order() const { return b.elements(); }
  int64_t shares() const { return (channels() + kLtiChannels - 1) / kLtiChannels; }
  kernels::LtiScanTask task(int64_t segment) const {
    const Segment& s = segments[segment];
    return {.u = u.data() + s.begin * channels(),
            .a = a.data(),
            .b = b.data(),
            .u_stride = channels(),
            .length = s.length,
            .channels = std::min(kLtiChannels, channels()),
            .order = order(),
            .state_stride = channels()};
  }
};

// What the shares of a segment work on.
struct LtiPart {
  kernels::LtiScanTask task;  // of the first share
  const float* before;        // the state, or the gradient of the last one
  float *after, *rows;        // the state, or the gradient of the first one; m, or du

  kernels::LtiScanTask of_share(int64_t share) const {
    kernels::LtiScanTask t = task;
    t.u += share * kLtiChannels, t.channels = std::min(kLtiChannels, task.u_stride - share * kLtiChannels);
    return t;
  }
};

}  // namespace

Var lti_scan(const Var& u, const Tensor& a, const Tensor& b, const Batch& batch, size_t field) {
  LtiCore core{u.value(), a, b, {batch.segments.begin(), batch.segments.end()}};
  const int64_t channels = core.channels(), order = core.order(), width = order * channels;
  SENNIT_CHECK(a.shape() == Shape({order, order}), "lti_scan: {} and {}", a.shape().str(), b.shape().str());
  Carry carry(batch, field, {order, channels});
  Tensor m({u.rows(), width});
  const int64_t flops = 2 * u.rows() * width * (order + 1);
  count_flops(flops);
  Pooled<LtiPart> parts;
  for (int64_t i = 0; i < std::ssize(core.segments); ++i)
    parts.push_back({core.task(i), carry.in(i), carry.out(i), m.data() + core.segments[i].begin * width});
  each_head(parts, core.shares(), kernels::lti_scan().scratch_floats,
            [width, shares = core.shares()](const LtiPart& part, int64_t at, float* scratch) {
              const int64_t c = at % shares * kLtiChannels;
              kernels::lti_scan().forward(part.of_share(at % shares), moved(part.before, c), part.after + c, part.rows + c,
                                          width, scratch);
            });
  return carry.record(batch, std::move(m), {u}, [core, width, flops](const Tensor& dm, Gradients& into, Carry& kept) {
    Tensor& du = into.sum(0);
    count_flops(flops);
    Pooled<LtiPart> back;
    for (int64_t i = 0; i < std::ssize(core.segments); ++i)
      back.push_back({core.task(i), kept.d_out(i), kept.d_in(i), du.data() + core.segments[i].begin * core.channels()});
    each_head(back, core.shares(), kernels::lti_scan().scratch_floats, [&](const LtiPart& part, int64_t at, float* scratch) {
      const int64_t c = at % core.shares() * kLtiChannels, row = core.segments[at / core.shares()].begin;
      kernels::lti_scan().backward(part.of_share(at % core.shares()), dm.data() + row * width + c, width,
                                   moved(part.before, c), part.rows + c, moved(part.after, c), scratch);
    });
  });
}

}  // namespace sennit
