#include "kernels/modal_scan.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

struct ModalCore {
  Tensor u, lr, li, wr, wi;
  Pooled<Segment> segments;

  int64_t channels() const { return u.row_size(); }
  int64_t modes() const { return lr.row_size(); }
  kernels::ModalScanTask task(int64_t segment, int64_t channel) const {
    const Segment& s = segments[segment];
    const int64_t at = channel * modes();
    return {.u = u.data() + s.begin * channels() + channel,
            .lr = lr.data() + at,
            .li = li.data() + at,
            .wr = wr.data() + at,
            .wi = wi.data() + at,
            .u_stride = channels(),
            .length = s.length,
            .modes = modes()};
  }
};

}  // namespace

Var modal_scan(const ModalScanInputs& in, const Batch& batch, size_t field) {
  ModalCore core{in.u.value(),  in.lr.value(), in.li.value(),
            in.wr.value(), in.wi.value(), {batch.segments.begin(), batch.segments.end()}};
  const int64_t channels = core.channels(), modes = core.modes();
  for (const Var* x : {&in.lr, &in.li, &in.wr, &in.wi})
    SENNIT_CHECK(x->shape() == Shape({channels, modes}), "modal_scan: {} for {}", x->shape().str(), in.u.shape().str());
  Carry carry(batch, field, {channels, 2, modes});
  Tensor y(in.u.shape());
  count_flops(y.elements() * modes * 11);
  parallel_for(std::ssize(core.segments) * channels, 8, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t segment = i / channels, channel = i % channels, at = channel * 2 * modes;
      kernels::modal_scan().forward(core.task(segment, channel), moved(carry.in(segment), at), carry.out(segment) + at,
                                    y.data() + core.segments[segment].begin * channels + channel, channels);
    }
  });
  return carry.record(batch, std::move(y), {in.u, in.lr, in.li, in.wr, in.wi},
                      [core, channels, modes](const Tensor& dy, Gradients& into, Carry& kept) {
                        Tensor &du = into.sum(0), &dlr = into.sum(1), &dli = into.sum(2), &dwr = into.sum(3),
                               &dwi = into.sum(4);
                        count_flops(dy.elements() * modes * 30);
                        // A channel's modes gather from all segments: one thread, in order.
                        parallel_for(channels, 8, [&](int64_t b, int64_t e) {
                          int64_t need = 0;
                          for (int64_t i = 0; i < std::ssize(core.segments); ++i)
                            need = std::max(need, kernels::modal_scan().backward_scratch_floats(core.task(i, 0)));
                          Tensor scratch({need});
                          for (int64_t c = b; c < e; ++c)
                            for (int64_t i = 0; i < std::ssize(core.segments); ++i) {
                              const int64_t at = core.segments[i].begin * channels + c, mode = c * modes;
                              kernels::modal_scan().backward(core.task(i, c), moved(kept.in(i), 2 * mode),
                                                             dy.data() + at, channels, moved(kept.d_out(i), 2 * mode),
                                                             {du.data() + at, dlr.data() + mode, dli.data() + mode,
                                                              dwr.data() + mode, dwi.data() + mode},
                                                             moved(kept.d_in(i), 2 * mode), scratch.data());
                            }
                        });
                      });
}

}  // namespace sennit
