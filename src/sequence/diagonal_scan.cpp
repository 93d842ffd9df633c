#include "kernels/diagonal_scan.h"

#include <algorithm>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kChannels = 64;  // a task's share, whatever the threads

template <class Body>  // body(segment index, first channel, task)
void each_share(const Tensor& x, const Tensor& g, std::span<const Segment> segments, Body&& body) {
  const int64_t channels = x.row_size(), shares = (channels + kChannels - 1) / kChannels;
  parallel_for(std::ssize(segments) * shares, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const Segment& s = segments[i / shares];
      const int64_t c = i % shares * kChannels, at = s.begin * channels + c;
      body(i / shares, c,
           kernels::DiagonalScanTask{.x = x.data() + at, .g = g.data() + at, .x_stride = channels, .g_stride = channels,
                                     .length = s.length, .channels = std::min(kChannels, channels - c)});
    }
  });
}

}  // namespace

Var diagonal_scan(const Var& x, const Var& g, const Batch& batch, size_t field) {
  SENNIT_CHECK(x.shape() == g.shape(), "diagonal_scan: {} and {}", x.shape().str(), g.shape().str());
  const int64_t channels = x.columns();
  Carry carry(batch, field, {1, channels});
  Tensor y(x.shape());
  count_flops(3 * y.elements());
  const Tensor values = x.value(), gates = g.value();
  each_share(values, gates, batch.segments, [&](int64_t i, int64_t c, const auto& task) {
    kernels::diagonal_scan().forward(task, moved(carry.in(i), c), carry.out(i) + c, y.data() + batch.segments[i].begin * channels + c, channels);
  });
  return carry.record(batch, y, {x, g}, [values, gates, y, channels, segments = Pooled<Segment>(batch.segments.begin(), batch.segments.end())](
                                            const Tensor& dy, Gradients& into, Carry& kept) {
    Tensor &dx = into.sum(0), &dg = into.sum(1);
    count_flops(6 * dy.elements());
    each_share(values, gates, segments, [&](int64_t i, int64_t c, const auto& task) {
      const int64_t at = segments[i].begin * channels + c;
      kernels::diagonal_scan().backward(task, moved(kept.in(i), c), y.data() + at, channels, dy.data() + at, channels, moved(kept.d_out(i), c),
                                        dx.data() + at, dg.data() + at, moved(kept.d_in(i), c));
    });
  });
}

}  // namespace sennit
