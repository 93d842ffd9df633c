#include "kernels/dplr_modes.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

struct DplrModesCore {
  Tensor u, a, b, e, p, c;
  Pooled<Segment> segments;

  int64_t channels() const { return u.row_size(); }
  int64_t modes() const { return a.row_size() / 2; }
  kernels::DplrModesTask task(int64_t segment, int64_t channel) const {
    const Segment& s = segments[segment];
    const int64_t at = channel * 2 * modes();
    return {.u = u.data() + s.begin * channels() + channel,
            .a = a.data() + at,
            .b = b.data() + at,
            .e = e.data() + at,
            .p = p.data() + at,
            .c = c.data() + at,
            .u_stride = channels(),
            .length = s.length,
            .modes = modes()};
  }
};

}  // namespace

Var dplr_modes(const DplrModesInputs& in, const Batch& batch, size_t field) {
  DplrModesCore core{in.u.value(),
            in.a.value(),
            in.b.value(),
            in.e.value(),
            in.p.value(),
            in.c.value(),
            {batch.segments.begin(), batch.segments.end()}};
  const int64_t channels = core.channels(), modes = core.modes();
  for (const Var* x : {&in.a, &in.b, &in.e, &in.p, &in.c})
    SENNIT_CHECK(x->shape() == Shape({channels, 2 * modes}), "dplr_modes: {} for {}", x->shape().str(),
                 in.u.shape().str());
  Carry carry(batch, field, {channels, 2, modes});
  Tensor y(in.u.shape());
  count_flops(y.elements() * modes * 32);
  parallel_for(std::ssize(core.segments) * channels, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t segment = i / channels, channel = i % channels, at = channel * 2 * modes;
      kernels::dplr_modes().forward(core.task(segment, channel), moved(carry.in(segment), at), carry.out(segment) + at,
                                    y.data() + core.segments[segment].begin * channels + channel, channels);
    }
  });
  return carry.record(batch, std::move(y), {in.u, in.a, in.b, in.e, in.p, in.c},
                      [core, channels, modes](const Tensor& dy, Gradients& into, Carry& kept) {
                        Tensor* to[6];
                        for (int i = 0; i < 6; ++i) to[i] = &into.sum(i);
                        count_flops(dy.elements() * modes * 110);
                        // A channel's modes gather from all segments: one thread, in order.
                        parallel_for(channels, 8, [&](int64_t begin, int64_t end) {
                          int64_t need = 0;
                          for (int64_t i = 0; i < std::ssize(core.segments); ++i)
                            need = std::max(need, kernels::dplr_modes().backward_scratch_floats(core.task(i, 0)));
                          Tensor scratch({need});
                          for (int64_t c = begin; c < end; ++c)
                            for (int64_t i = 0; i < std::ssize(core.segments); ++i) {
                              const int64_t at = core.segments[i].begin * channels + c, mode = c * 2 * modes;
                              kernels::dplr_modes().backward(
                                  core.task(i, c), moved(kept.in(i), mode), dy.data() + at, channels,
                                  moved(kept.d_out(i), mode),
                                  {to[0]->data() + at, to[1]->data() + mode, to[2]->data() + mode, to[3]->data() + mode,
                                   to[4]->data() + mode, to[5]->data() + mode},
                                  moved(kept.d_in(i), mode), scratch.data());
                            }
                        });
                      });
}

}  // namespace sennit
