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
  kernels::LtiScanTask task(int64_t segment, int64_t share) const {
    const Segment& s = segments[segment];
    const int64_t channel = share * kLtiChannels;
    return {.u = u.data() + s.begin * channels() + channel,
            .a = a.data(),
            .b = b.data(),
            .u_stride = channels(),
            .length = s.length,
            .channels = std::min(kLtiChannels, channels() - channel),
            .order = order(),
            .state_stride = channels()};
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
  each_head(
      std::ssize(core.segments), core.shares(), [&](int64_t i, int64_t share) { return core.task(i, share); },
      kernels::lti_scan().scratch_floats,
      [&](int64_t i, int64_t share, const auto& task, float* scratch) {
        const int64_t c = share * kLtiChannels;
        kernels::lti_scan().forward(task, moved(carry.in(i), c), carry.out(i) + c,
                                    m.data() + core.segments[i].begin * width + c, width, scratch);
      });
  return carry.record(batch, std::move(m), {u}, [core, width, flops](const Tensor& dm, Gradients& into, Carry& kept) {
    Tensor& du = into.sum(0);
    count_flops(flops);
    each_head(
        std::ssize(core.segments), core.shares(), [&](int64_t i, int64_t share) { return core.task(i, share); },
        kernels::lti_scan().scratch_floats,
        [&](int64_t i, int64_t share, const auto& task, float* scratch) {
          const int64_t c = share * kLtiChannels, row = core.segments[i].begin;
          kernels::lti_scan().backward(task, dm.data() + row * width + c, width, moved(kept.d_out(i), c),
                                       du.data() + row * core.channels() + c, moved(kept.d_in(i), c), scratch);
        });
  });
}

}  // namespace sennit
