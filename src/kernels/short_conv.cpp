#include "kernels/short_conv.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kVectors = 4;
constexpr float kZeros[kVectors * kLanes] = {};

// J vectors of channels, side by side so that a row's cache lines are taken together; the last vector has `lanes` lanes
// (all, if J > 1).
struct Columns {
  int64_t channel, lanes;
};

// Row `position` of the state followed by the sequence: positions from -(width - 1) to length - 1.
SENNIT_INLINE const float* input_row(const ShortConvTask& t, const float* state, int64_t position, int64_t channel) {
  if (position >= 0) return t.x + position * t.x_stride + channel;
  return state ? state + (t.width - 1 + position) * t.state_stride + channel : kZeros;
}

template <int J>
SENNIT_INLINE void load_row(const float* p, int64_t lanes, vf (&row)[J]) {
  for (int l = 0; l < J; ++l) row[l] = load_n(p + l * kLanes, lanes);
}

// w[j] = the weights w[c, j] with the channels as lanes.
template <int W, int J>
SENNIT_INLINE void load_weights(const ShortConvTask& t, Columns at, vf (&w)[W][J]) {
  for (int j = 0; j < W; ++j)
    for (int l = 0; l < J; ++l) {
      float lanes[kLanes] = {};
      for (int64_t c = 0; c < at.lanes; ++c) lanes[c] = t.w[(at.channel + l * kLanes + c) * W + j];
      w[j][l] = load(lanes);
    }
}

// The last W rows, oldest first.
template <int W, int J>
SENNIT_INLINE void push(vf (&window)[W][J], const vf (&next)[J]) {
  for (int l = 0; l < J; ++l) {
    for (int j = 0; j + 1 < W; ++j) window[j][l] = window[j + 1][l];
    window[W - 1][l] = next[l];
  }
}

template <int W, int J>
SENNIT_INLINE void load_state(const ShortConvTask& t, const float* state, Columns at, vf (&window)[W][J]) {
  load_row(kZeros, at.lanes, window[0]);
  for (int j = 1; j < W; ++j) load_row(input_row(t, state, j - W, at.channel), at.lanes, window[j]);
}

template <int W, int J>
void forward_columns(const ShortConvTask& t, const float* state, float* state_end, float* y, int64_t y_stride,
                     Columns at) {
  const auto [channel, lanes] = at;
  vf w[W][J], window[W][J], bias[J], next[J];
  load_row(t.bias ? t.bias + channel : kZeros, lanes, bias);
  load_weights(t, at, w);
  load_state(t, state, at, window);
  for (int64_t i = 0; i < t.length; ++i) {
    load_row(t.x + i * t.x_stride + channel, lanes, next);
    push(window, next);
    for (int l = 0; l < J; ++l) {
      vf sum = bias[l];
      for (int j = 0; j < W; ++j) sum = fma(w[j][l], window[j][l], sum);
      store_n(y + i * y_stride + channel + l * kLanes, sum, lanes);
    }
  }
  for (int j = 1; j < W && state_end; ++j)
    for (int l = 0; l < J; ++l)
      store_n(state_end + (j - 1) * t.state_stride + channel + l * kLanes, window[j][l], lanes);
}

template <int W, int J>
SENNIT_INLINE void add_weight_gradients(Columns at, const vf (&sums)[W][J], float* dw) {
  for (int j = 0; j < W; ++j)
    for (int l = 0; l < J; ++l) {
      float lanes[kLanes];
      store(lanes, sums[j][l]);
      for (int64_t c = 0; c < at.lanes; ++c) dw[(at.channel + l * kLanes + c) * W + j] += lanes[c];
    }
}

struct Gradients {
  const float* end;  // of the state kept at the end, or nullptr
  float *dx, *dw, *dbias, *dstate;
};

// One pass over the outputs. Output i completes the gradient of the input W - 1 tokens before it; outputs past the end
// are zeros.
template <int W, int J>
void backward_columns(const ShortConvTask& t, const float* state, const float* dy, int64_t dy_stride,
                      const Gradients& d, Columns at) {
  const auto [channel, lanes] = at;
  vf w[W][J], inputs[W][J], outputs[W][J], sums[W][J], total[J], g[J], next[J];
  load_weights(t, at, w);
  load_state(t, state, at, inputs);
  for (int j = 0; j < W; ++j) load_row(kZeros, lanes, sums[j]), load_row(kZeros, lanes, outputs[j]);
  load_row(kZeros, lanes, total);
  for (int64_t i = 0; i < t.length + W - 1; ++i) {
    load_row(i < t.length ? dy + i * dy_stride + channel : kZeros, lanes, g);
    push(outputs, g);
    if (i < t.length) {
      load_row(t.x + i * t.x_stride + channel, lanes, next);
      push(inputs, next);
      for (int l = 0; l < J; ++l) {
        for (int j = 0; j < W; ++j) sums[j][l] = fma(g[l], inputs[j][l], sums[j][l]);
        total[l] = total[l] + g[l];
      }
    }
    const int64_t position = i - W + 1, kept = position - (t.length - W + 1);
    if (position < 0 && !d.dstate) continue;
    float* to = (position < 0 ? d.dstate + i * t.state_stride : d.dx + position * t.x_stride) + channel;
    load_row(d.end && kept >= 0 ? d.end + kept * t.state_stride + channel : kZeros, lanes, next);
    for (int l = 0; l < J; ++l) {
      for (int j = 0; j < W; ++j) next[l] = fma(w[j][l], outputs[W - 1 - j][l], next[l]);
      add_n(to + l * kLanes, next[l], lanes);
    }
  }
  add_weight_gradients(at, sums, d.dw);
  for (int l = 0; l < J && d.dbias; ++l) add_n(d.dbias + channel + l * kLanes, total[l], lanes);
}

// Calls body(W, J, columns), the former two as types, for all channels.
template <int W, class Body>
SENNIT_INLINE void for_columns(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kVectors * kLanes <= channels; c += kVectors * kLanes)
    body.template operator()<W, kVectors>(Columns{c, kLanes});
  for_lanes(channels - c, [&](int64_t l, int64_t k) { body.template operator()<W, 1>(Columns{c + l, k}); });
}

template <class Body>
SENNIT_INLINE void for_columns(const ShortConvTask& t, const Body& body) {
  switch (t.width) {
    case 2:
      return for_columns<2>(t.channels, body);
    case 3:
      return for_columns<3>(t.channels, body);
    case 4:
      return for_columns<4>(t.channels, body);
    case 5:
      return for_columns<5>(t.channels, body);
    case 6:
      return for_columns<6>(t.channels, body);
    case 7:
      return for_columns<7>(t.channels, body);
    case 8:
      return for_columns<8>(t.channels, body);
  }
}

void forward(const ShortConvTask& t, const float* state, float* state_end, float* y, int64_t y_stride) {
  for_columns(t, [&]<int W, int J>(Columns at) { forward_columns<W, J>(t, state, state_end, y, y_stride, at); });
}

void backward(const ShortConvTask& t, const float* state, const float* dy, int64_t dy_stride, const float* dstate_end,
              float* dx, float* dw, float* dbias, float* dstate) {
  const Gradients d{dstate_end, dx, dw, dbias, dstate};
  for_columns(t, [&]<int W, int J>(Columns at) { backward_columns<W, J>(t, state, dy, dy_stride, d, at); });
}

}  // namespace

const ShortConv short_conv_table = {.forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
