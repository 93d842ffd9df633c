#include <algorithm>

#include "base/error.h"
#include "kernels/short_conv.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"
#include "sequence/recurrences.h"

namespace sennit {
namespace {

constexpr int64_t kShortConvChannels = 64;  // a task's share

struct ShortConv {
  Tensor x, w, bias;
  Pooled<Segment> segments;

  int64_t channels() const { return x.row_size(); }
  int64_t width() const { return w.row_size(); }
  kernels::ShortConvTask task(const Segment& s, int64_t channel, int64_t count) const {
    return {.x = x.data() + s.begin * channels() + channel,
            .x_stride = channels(),
            .w = w.data() + channel * width(),
            .bias = bias ? bias.data() + channel : nullptr,
            .length = s.length,
            .channels = count,
            .width = width(),
            .state_stride = channels()};
  }
};

template <class Body>  // body(first channel, channels), over shares that do not depend on the threads
void each_share(int64_t channels, Body&& body) {
  parallel_for((channels + kShortConvChannels - 1) / kShortConvChannels, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) body(i * kShortConvChannels, std::min(kShortConvChannels, channels - i * kShortConvChannels));
  });
}

}  // namespace

Var short_conv(const Var& x, const Var& weight, const Var& bias, const Batch& batch, size_t field) {
  SENNIT_CHECK(weight.rows() == x.columns() && weight.columns() >= 2 && weight.columns() <= 8, "short_conv: {} by {}", x.shape().str(),
               weight.shape().str());
  ShortConv conv{x.value(), weight.value(), bias.value(), {batch.segments.begin(), batch.segments.end()}};
  Carry carry(batch, field, {conv.width() - 1, conv.channels()});
  Tensor y(x.shape());
  count_flops(2 * y.elements() * conv.width());
  each_share(conv.channels(), [&](int64_t c, int64_t count) {
    for (size_t i = 0; i < conv.segments.size(); ++i)
      kernels::short_conv().forward(conv.task(conv.segments[i], c, count), moved(carry.in(i), c), carry.out(i) + c,
                                    y.data() + conv.segments[i].begin * conv.channels() + c, conv.channels());
  });
  return carry.record(batch, std::move(y), {x, weight, bias}, [conv](const Tensor& dy, Gradients& into, Carry& kept) {
    count_flops(4 * dy.elements() * conv.width());
    Tensor &dx = into.sum(0), &dw = into.sum(1);
    float* db = into.wants(2) ? into.sum(2).data() : nullptr;
    each_share(conv.channels(), [&](int64_t c, int64_t count) {
      for (size_t i = 0; i < conv.segments.size(); ++i) {
        const int64_t row = conv.segments[i].begin * conv.channels() + c;
        kernels::short_conv().backward(conv.task(conv.segments[i], c, count), moved(kept.in(i), c), dy.data() + row, conv.channels(),
                                       moved(kept.d_out(i), c), dx.data() + row, dw.data() + c * conv.width(), moved(db, c),
                                       moved(kept.d_in(i), c));
      }
    });
  });
}

}  // namespace sennit
