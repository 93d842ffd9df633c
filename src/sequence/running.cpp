#include "sequence/running.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/log_sum.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/maps.h"
#include "sequence/carry.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

constexpr int64_t kRunningChannels = 64;  // a task's share, whatever the threads

template <class Body>  // body(segment index, first channel, channels)
void each_share(int64_t segments, int64_t channels, Body&& body) {
  const int64_t shares = (channels + kRunningChannels - 1) / kRunningChannels;
  parallel_for(segments * shares, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i)
      body(i / shares, i % shares * kRunningChannels, std::min(kRunningChannels, channels - i % shares * kRunningChannels));
  });
}

Var above_past(const Var& k, const Batch& batch, size_t field) {
  const int64_t channels = k.columns();
  Carry carry(batch, field, {1, channels});
  Tensor u(k.shape());
  const Tensor logits = k.value();
  count_flops(4 * u.elements());
  const auto task = [logits, channels](const Segment& s, int64_t c, int64_t count) {
    return kernels::LogSumTask{
        .k = logits.data() + s.begin * channels + c, .k_stride = channels, .length = s.length, .channels = count};
  };
  each_share(std::ssize(batch.segments), channels, [&](int64_t i, int64_t c, int64_t count) {
    const Segment& s = batch.segments[i];
    kernels::log_sum().forward(task(s, c, count), moved(carry.in(i), c), carry.out(i) + c,
                               u.data() + s.begin * channels + c, channels);
  });
  return carry.record(batch, u, {k},
                      [u, channels, task, segments = Pooled<Segment>(batch.segments.begin(), batch.segments.end())](
                          const Tensor& du, Gradients& into, Carry& kept) {
                        Tensor& dk = into.sum(0);
                        count_flops(8 * u.elements());
                        each_share(std::ssize(segments), channels, [&](int64_t i, int64_t c, int64_t count) {
                          const int64_t at = segments[i].begin * channels + c;
                          kernels::log_sum().backward(task(segments[i], c, count), u.data() + at, channels,
                                                      du.data() + at, channels, moved(kept.d_out(i), c), dk.data() + at,
                                                      moved(kept.d_in(i), c));
                        });
                      });
}

}  // namespace

RunningSoftmax running_softmax(const Var& k, const Batch& batch, size_t field) {
  const Var u = above_past(k, batch, field);
  return {sigmoid(u), scale(softplus(u), -1), u};
}

Var running_phase(const Var& turns, int64_t heads, const Batch& batch, size_t field) {
  const int64_t channels = turns.columns(), dim = channels / heads;
  SENNIT_CHECK(channels % heads == 0, "running_phase: {} over {} heads", turns.shape().str(), heads);
  Carry carry(batch, field, {1, channels});
  Tensor y({turns.rows(), 2 * channels});
  const Tensor b = turns.value();
  count_flops(4 * b.elements());
  const auto place = [channels, dim](int64_t row, int64_t c) { return 2 * (row * channels + c / dim * dim) + c % dim; };
  each_share(std::ssize(batch.segments), channels, [&](int64_t i, int64_t first, int64_t count) {
    const Segment& s = batch.segments[i];
    for (int64_t c = first; c < first + count; ++c) {
      float phase = carry.in(i) ? carry.in(i)[c] : 0;
      for (int64_t t = s.begin; t < s.begin + s.length; ++t) {
        phase = static_cast<float>(std::remainder(double{phase} + b.data()[t * channels + c], 2 * M_PI));
        y.data()[place(t, c)] = std::cos(phase);
        y.data()[place(t, c) + dim] = std::sin(phase);
      }
      carry.out(i)[c] = phase;
    }
  });
  return carry.record(
      batch, y, {turns},
      [y, channels, dim, place, segments = Pooled<Segment>(batch.segments.begin(), batch.segments.end())](
          const Tensor& dy, Gradients& into, Carry& kept) {
        Tensor& db = into.sum(0);
        count_flops(4 * db.elements());
        each_share(std::ssize(segments), channels, [&](int64_t i, int64_t first, int64_t count) {
          const Segment& s = segments[i];
          for (int64_t c = first; c < first + count; ++c) {
            float d = kept.d_out(i) ? kept.d_out(i)[c] : 0;
            for (int64_t t = s.begin + s.length - 1; t >= s.begin; --t) {
              const int64_t at = place(t, c);
              d += y.data()[at] * dy.data()[at + dim] - y.data()[at + dim] * dy.data()[at];
              db.data()[t * channels + c] += d;
            }
            if (float* d_in = kept.d_in(i)) d_in[c] += d;
          }
        });
      });
}

}  // namespace sennit
