#include "sequence/long_conv.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>

#include "base/error.h"
#include "kernels/long_conv.h"
#include "ops/count.h"
#include "ops/layout.h"
#include "sequence/per_head.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kLongConvChannels = 32;  // a task's share

// The turns of all transforms up to n elements, as kernels/fft.h wants them.
const float* fft_turns(int64_t n) {
  static std::mutex mutex;
  static std::map<int64_t, std::vector<float>> made;
  std::lock_guard lock(mutex);
  std::vector<float>& turns = made[n];
  if (turns.empty() && n > 0) {
    turns.resize(static_cast<size_t>(2 * n));
    for (int64_t half = 1; half < n; half *= 2)
      for (int64_t j = 0; j < half; ++j) {
        const double angle = -M_PI * static_cast<double>(j) / static_cast<double>(half);
        turns[static_cast<size_t>(2 * (half + j))] = static_cast<float>(std::cos(angle));
        turns[static_cast<size_t>(2 * (half + j) + 1)] = static_cast<float>(std::sin(angle));
      }
  }
  return turns.data();
}

// One sequence: where its rows of x stand, which of them are new, and where their outputs go.
struct Piece {
  size_t source;
  int64_t begin, rows, first, out;
};

struct LongConv {
  Tensor h;
  Pooled<Tensor> sources;
  Pooled<Piece> pieces;
  bool exact;

  int64_t channels() const { return h.row_size(); }
  int64_t shares() const { return (channels() + kLongConvChannels - 1) / kLongConvChannels; }
  kernels::LongConvTask task(const Piece& p, int64_t channel) const {
    return with_turns({.x = sources[p.source].data() + p.begin * channels() + channel,
                       .h = h.data() + channel,
                       .x_stride = channels(),
                       .h_stride = channels(),
                       .rows = p.rows,
                       .first = p.first,
                       .end = p.rows,
                       .taps = h.rows(),
                       .channels = std::min(kLongConvChannels, channels() - channel),
                       .exact = exact,
                       .turns = nullptr});
  }
  // Its gradient: dx[s] = sum_t h[t - s] dy[t] is the same convolution with time running backwards.
  kernels::LongConvTask backwards(const Piece& p, const Tensor& dy, int64_t channel) const {
    kernels::LongConvTask t = task(p, channel);
    t.x = dy.data() + (p.out + p.rows - p.first - 1) * channels() + channel;
    t.x_stride = -channels();
    t.rows = p.rows - p.first;
    t.first = 0;
    return with_turns(t);
  }
  static kernels::LongConvTask with_turns(kernels::LongConvTask t) {
    t.turns = fft_turns(kernels::long_conv().largest_transform(t));
    return t;
  }
};

int64_t scratch_of(const kernels::LongConvTask& t) {
  return kernels::long_conv().scratch_floats(t);
}

void forward(const LongConv& conv, Tensor& y) {
  int64_t need = 0, flops = 0;
  for (const Piece& p : conv.pieces)
    for (int64_t share = 0; share < conv.shares() && p.rows > p.first; ++share) {
      const auto task = conv.task(p, share * kLongConvChannels);
      need = std::max(need, scratch_of(task)), flops += kernels::long_conv().flops(task);
    }
  count_flops(flops);
  each_with_scratch(std::ssize(conv.pieces) * conv.shares(), need, [&](int64_t i, float* scratch) {
    const Piece& p = conv.pieces[i / conv.shares()];
    const int64_t channel = i % conv.shares() * kLongConvChannels;
    if (p.rows == p.first) return;
    kernels::long_conv().forward(conv.task(p, channel), y.data() + p.out * conv.channels() + channel, conv.channels(),
                                 scratch);
  });
}

// One thread adds up a share of channels over all sequences, in order.
void backward(const LongConv& conv, const Tensor& dy, Tensor& dh, std::span<Tensor*> dx) {
  int64_t need = 0, flops = 0;
  for (const Piece& p : conv.pieces)
    for (int64_t share = 0; share < conv.shares() && p.rows > p.first; ++share) {
      const auto back = conv.backwards(p, dy, share * kLongConvChannels), task = conv.task(p, share * kLongConvChannels);
      need = std::max({need, scratch_of(back), scratch_of(task)});
      flops += kernels::long_conv().flops(back) + kernels::long_conv().filter_gradient_flops(task);
    }
  count_flops(flops);
  each_with_scratch(conv.shares(), need, [&](int64_t share, float* scratch) {
    const int64_t channel = share * kLongConvChannels, width = conv.channels();
    for (const Piece& p : conv.pieces) {
      if (p.rows == p.first) continue;
      kernels::long_conv().forward(conv.backwards(p, dy, channel),
                                   dx[p.source]->data() + (p.begin + p.rows - 1) * width + channel, -width, scratch);
      kernels::long_conv().filter_gradient(conv.task(p, channel), dy.data() + p.out * width + channel, width,
                                           dh.data() + channel, scratch);
    }
  });
}

}  // namespace

Var long_conv(const Var& x, const Var& h, const Batch& batch, size_t field, int64_t window) {
  SENNIT_CHECK(h.columns() == x.columns() && h.rows() > 0, "long_conv: {} with {}", x.shape().str(), h.shape().str());
  Pooled<Var> sources = {x};
  LongConv conv{h.value(), {}, {}, batch.context->exact};
  for (const Segment& s : batch.segments) {
    Piece p{0, s.begin, s.length, 0, s.begin};
    if (LayerState* state = batch.state(s)) {
      p.source = sources.size();
      sources.push_back(state->append(field, rows(x, s.begin, s.length), window ? window : h.rows()));
      p.begin = 0;
      p.rows = sources.back().rows();
      p.first = p.rows - s.length;
    }
    conv.pieces.push_back(p);
  }
  for (const Var& v : sources) conv.sources.push_back(v.value());
  Tensor y = Tensor::zeros({x.rows(), x.columns()});
  forward(conv, y);
  if (!recording()) return Var(std::move(y));
  std::vector<Var> inputs = {h};
  inputs.insert(inputs.end(), sources.begin(), sources.end());
  return record(std::move(y), inputs, [conv](std::span<const Tensor> dy, Gradients& into) {
    std::vector<Tensor*> dx;
    for (int i = 0; i < static_cast<int>(conv.sources.size()); ++i) dx.push_back(&into.sum(1 + i));
    backward(conv, dy[0], into.sum(0), dx);
  });
}

StateField long_conv_state(std::string name, int64_t taps, int64_t channels) {
  return {std::move(name), {1, channels}, Growth::window, taps};
}

int64_t long_conv_flops(int64_t n, int64_t taps, int64_t channels) {
  return kernels::long_conv().flops({.x = nullptr,
                                     .h = nullptr,
                                     .x_stride = 0,
                                     .h_stride = 0,
                                     .rows = n,
                                     .first = 0,
                                     .end = n,
                                     .taps = taps,
                                     .channels = channels,
                                     .exact = false,
                                     .turns = nullptr});
}

}  // namespace sennit
