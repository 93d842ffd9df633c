#include "sequence/plane.h"

#include "base/error.h"
#include "kernels/plane_conv.h"
#include "ops/count.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

constexpr int64_t kPlaneChannels = 32;  // a task's share

struct PlaneConvolution {
  Tensor x, w;
  Neighbours neighbours;
  bool causal, differences;
  Pooled<Segment> segments;

  int64_t channels() const { return x.row_size(); }
  int64_t kept() const { return causal ? neighbours.before() : 0; }
  bool shared() const { return w.rows() == neighbours.taps(); }
  // Where the weights of a segment begin, and its rows.
  int64_t weights_at(size_t segment) const {
    return shared() ? 0 : static_cast<int64_t>(segment) * neighbours.taps() * channels();
  }
  int64_t rows_at(size_t segment) const { return segments[segment].begin * channels(); }
  kernels::PlaneConvTask task(size_t segment, int64_t channel, int64_t count) const {
    const Segment& s = segments[segment];
    return {.x = x.data() + rows_at(segment) + channel,
            .w = w.data() + weights_at(segment) + channel,
            .stride = channels(),
            .length = s.length,
            .channels = count,
            .position = causal ? s.position : 0,
            .columns = neighbours.columns,
            .rows_away = neighbours.rows_away,
            .columns_away = neighbours.columns_away,
            .causal = causal,
            .differences = differences,
            .kept = kept()};
  }
  template <class Body>  // body(first channel, channels), over shares that do not depend on the threads
  void each_share(Body&& body) const {
    parallel_for((channels() + kPlaneChannels - 1) / kPlaneChannels, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i)
        body(i * kPlaneChannels, std::min(kPlaneChannels, channels() - i * kPlaneChannels));
    });
  }
  // The last rows of what a segment had kept and its own. `to` may be `from`.
  void keep_last(size_t segment, const float* from, float* to) const {
    const int64_t n = segments[segment].length, width = channels(), old = std::max<int64_t>(0, kept() - n);
    if (from)
      std::copy(from + (kept() - old) * width, from + kept() * width, to);
    else
      std::fill_n(to, old * width, 0.0f);
    std::copy_n(x.data() + rows_at(segment) + (n - (kept() - old)) * width, (kept() - old) * width, to + old * width);
  }
  void keep_last_gradient(size_t segment, const float* d_to, float* dx, float* d_from) const {
    const int64_t n = segments[segment].length, width = channels(), old = std::max<int64_t>(0, kept() - n);
    for (int64_t i = 0; i < old * width && d_from; ++i) d_from[(kept() - old) * width + i] += d_to[i];
    float* const rows = dx + rows_at(segment) + (n - (kept() - old)) * width;
    for (int64_t i = 0; i < (kept() - old) * width; ++i) rows[i] += d_to[old * width + i];
  }
};

Var convolve_plane(const Var& x, const Var& weights, const Neighbours& neighbours, const Batch& batch, size_t field,
                   bool differences) {
  PlaneConvolution conv{x.value(),   weights.value(),
                        neighbours,  batch.pattern == Pattern::causal,
                        differences, {batch.segments.begin(), batch.segments.end()}};
  SENNIT_CHECK(conv.w.row_size() == conv.channels() &&
                   (conv.shared() || conv.w.rows() == std::ssize(conv.segments) * neighbours.taps()),
               "plane_conv: {} by {}", x.shape().str(), weights.shape().str());
  Carry carry(batch, field, {conv.kept(), conv.channels()});
  Tensor y(x.shape());
  count_flops(plane_conv_flops(x.rows(), neighbours, conv.channels()));
  conv.each_share([&](int64_t c, int64_t count) {
    for (size_t i = 0; i < conv.segments.size(); ++i)
      kernels::plane_conv().forward(conv.task(i, c, count), moved(carry.in(i), c), y.data() + conv.rows_at(i) + c);
  });
  for (size_t i = 0; i < conv.segments.size(); ++i)
    if (batch.state(conv.segments[i])) conv.keep_last(i, carry.in(i), carry.out(i));
  return carry.record(batch, std::move(y), {x, weights}, [conv](const Tensor& dy, Gradients& into, Carry& kept) {
    count_flops(2 * plane_conv_flops(dy.rows(), conv.neighbours, conv.channels()));
    float* const dx = into.sum(0).data();
    float* const dw = into.wants(1) ? into.sum(1).data() : nullptr;
    conv.each_share([&](int64_t c, int64_t count) {
      for (size_t i = 0; i < conv.segments.size(); ++i)
        kernels::plane_conv().backward(conv.task(i, c, count), moved(kept.in(i), c), dy.data() + conv.rows_at(i) + c,
                                       dx + conv.rows_at(i) + c, moved(dw, conv.weights_at(i) + c),
                                       moved(kept.d_in(i), c));
    });
    for (size_t i = 0; i < conv.segments.size(); ++i)
      if (kept.d_out(i)) conv.keep_last_gradient(i, kept.d_out(i), dx, kept.d_in(i));
  });
}

}  // namespace

Var plane_conv(const Var& x, const Var& weights, const Neighbours& neighbours, const Batch& batch, size_t field) {
  return convolve_plane(x, weights, neighbours, batch, field, false);
}
Var plane_differences(const Var& x, const Var& weights, const Neighbours& neighbours, const Batch& batch,
                      size_t field) {
  return convolve_plane(x, weights, neighbours, batch, field, true);
}

int64_t plane_conv_flops(int64_t n, const Neighbours& neighbours, int64_t channels) {
  return 2 * n * neighbours.taps() * channels;
}

}  // namespace sennit
