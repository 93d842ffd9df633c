#include "kernels/short_conv.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kBlock = 64;  // channels at a time: what is kept of them fits the first cache
constexpr int64_t kMaxWidth = 8;
constexpr float kZeros[kBlock] = {};

// The weights of a block of channels with the channels as lanes, [width, kBlock].
struct BlockWeights {
  float w[kMaxWidth * kBlock];
  BlockWeights(const float* from, int64_t channels, int64_t width) {
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t j = 0; j < width; ++j) w[j * kBlock + c] = from[c * width + j];
  }
};

// Row `position` of the state followed by the sequence: positions from -(width - 1) to length - 1.
SENNIT_INLINE const float* input_row(const ShortConvTask& t, const float* state, int64_t position, int64_t channel) {
  if (position >= 0) return t.x + position * t.x_stride + channel;
  return state ? state + (t.width - 1 + position) * t.state_stride + channel : kZeros;
}

// Calls body(first channel, channels) for each block.
template <class Body>
SENNIT_INLINE void for_blocks(int64_t channels, Body&& body) {
  for (int64_t c = 0; c < channels; c += kBlock) body(c, channels - c < kBlock ? channels - c : kBlock);
}

void advance_state(const ShortConvTask& t, const float* state, float* state_end, int64_t channel, int64_t n) {
  for (int64_t i = 0; i + 1 < t.width; ++i) {
    const float* from = input_row(t, state, t.length - t.width + 1 + i, channel);
    float* to = state_end + i * t.state_stride + channel;
    for_lanes(n, [&](int64_t l, int64_t k) { store_n(to + l, load_n(from + l, k), k); });
  }
}

void forward(const ShortConvTask& t, const float* state, float* state_end, float* y, int64_t y_stride) {
  for_blocks(t.channels, [&](int64_t channel, int64_t n) {
    const BlockWeights weights(t.w + channel * t.width, n, t.width);
    const float* bias = t.bias ? t.bias + channel : kZeros;
    const float* rows[kMaxWidth];
    for (int64_t i = 0; i < t.length; ++i) {
      for (int64_t j = 0; j < t.width; ++j) rows[j] = input_row(t, state, i - t.width + 1 + j, channel);
      float* out = y + i * y_stride + channel;
      for_lanes(n, [&](int64_t l, int64_t k) {
        vf sum = load_n(bias + l, k);
        for (int64_t j = 0; j < t.width; ++j)
          sum = fma(load_n(weights.w + j * kBlock + l, k), load_n(rows[j] + l, k), sum);
        store_n(out + l, sum, k);
      });
    }
    if (state_end) advance_state(t, state, state_end, channel, n);
  });
}

// to[l] += what reaches input `position` from the outputs that see it, and from the state kept at the end.
SENNIT_INLINE void input_gradient(const ShortConvTask& t, const float* w, const float* dy, int64_t dy_stride,
                                  const float* dstate_end, int64_t position, int64_t channel, int64_t n, float* to) {
  const int64_t kept = position - (t.length - t.width + 1);  // its row in the state at the end, if not negative
  for_lanes(n, [&](int64_t l, int64_t k) {
    vf sum = load_n(to + l, k);
    if (dstate_end && kept >= 0) sum = sum + load_n(dstate_end + kept * t.state_stride + channel + l, k);
    for (int64_t j = 0; j < t.width; ++j) {
      const int64_t output = position + t.width - 1 - j;
      if (output >= 0 && output < t.length)
        sum = fma(load_n(w + j * kBlock + l, k), load_n(dy + output * dy_stride + channel + l, k), sum);
    }
    store_n(to + l, sum, k);
  });
}

void weight_gradient(const ShortConvTask& t, const float* state, const float* dy, int64_t dy_stride, int64_t channel,
                     int64_t n, float* dw, float* dbias) {
  for_lanes(n, [&](int64_t l, int64_t k) {
    vf sums[kMaxWidth], total = zero();
    for (int64_t j = 0; j < t.width; ++j) sums[j] = zero();
    for (int64_t i = 0; i < t.length; ++i) {
      const vf g = load_n(dy + i * dy_stride + channel + l, k);
      total = total + g;
      for (int64_t j = 0; j < t.width; ++j)
        sums[j] = fma(g, load_n(input_row(t, state, i - t.width + 1 + j, channel) + l, k), sums[j]);
    }
    float lanes[kLanes];
    for (int64_t j = 0; j < t.width; ++j) {
      store(lanes, sums[j]);
      for (int64_t c = 0; c < k; ++c) dw[(channel + l + c) * t.width + j] += lanes[c];
    }
    if (dbias) store_n(dbias + channel + l, load_n(dbias + channel + l, k) + total, k);
  });
}

void backward(const ShortConvTask& t, const float* state, const float* dy, int64_t dy_stride, const float* dstate_end,
              float* dx, float* dw, float* dbias, float* dstate) {
  for_blocks(t.channels, [&](int64_t channel, int64_t n) {
    const BlockWeights weights(t.w + channel * t.width, n, t.width);
    for (int64_t i = dstate ? 1 - t.width : 0; i < t.length; ++i) {
      float* to = i < 0 ? dstate + (t.width - 1 + i) * t.state_stride : dx + i * t.x_stride;
      input_gradient(t, weights.w, dy, dy_stride, dstate_end, i, channel, n, to + channel);
    }
    weight_gradient(t, state, dy, dy_stride, channel, n, dw, dbias);
  });
}

}  // namespace

const ShortConv short_conv_table = {.forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
