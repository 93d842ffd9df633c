#include "kernels/plane_conv.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kVectors = 4;
constexpr float kNothing[kVectors * kLanes] = {};

// Calls body(row, tap) for every tap of token t that lies in the grid: `row` counts from the first token of the
// sequence, below 0 in the state.
template <class Body>
SENNIT_INLINE void each_tap(const PlaneConvTask& t, int64_t token, Body&& body) {
  const int64_t column = (t.position + token) % t.columns, wide = 2 * t.columns_away + 1;
  const int64_t first = column < t.columns_away ? -column : -t.columns_away,
                last = t.columns - 1 - column < t.columns_away ? t.columns - 1 - column : t.columns_away;
  for (int64_t i = -t.rows_away; i <= (t.causal ? 0 : t.rows_away); ++i)
    for (int64_t j = first; j <= (t.causal && i == 0 ? 0 : last); ++j) {
      const int64_t row = token + i * t.columns + j;
      if (t.position + row < 0 || row < -t.kept || row >= t.length) continue;
      body(row, (i + t.rows_away) * wide + j + t.columns_away);
    }
}

SENNIT_INLINE const float* input_row(const PlaneConvTask& t, const float* state, int64_t row, int64_t channel) {
  if (row >= 0) return t.x + row * t.stride + channel;
  return state ? state + (t.kept + row) * t.stride + channel : kNothing;
}

// J vectors of channels side by side; the last has `lanes` lanes (all, if J > 1).
template <int J>  // what is taken from every neighbour
SENNIT_INLINE void load_own(const PlaneConvTask& t, int64_t token, int64_t channel, int64_t lanes, vf (&own)[J]) {
  const float* row = t.differences ? t.x + token * t.stride + channel : kNothing;
  for (int l = 0; l < J; ++l) own[l] = load_n(row + l * kLanes, lanes);
}

template <int J>
SENNIT_INLINE void forward_columns(const PlaneConvTask& t, const float* state, float* y, int64_t channel,
                                   int64_t lanes) {
  for (int64_t token = 0; token < t.length; ++token) {
    vf sums[J], own[J];
    load_own(t, token, channel, lanes, own);
    for (int l = 0; l < J; ++l) sums[l] = zero();
    each_tap(t, token, [&](int64_t row, int64_t tap) {
      const float* in = input_row(t, state, row, channel);
      const float* w = t.w + tap * t.stride + channel;
      for (int l = 0; l < J; ++l)
        sums[l] = fma(load_n(w + l * kLanes, lanes), load_n(in + l * kLanes, lanes) - own[l], sums[l]);
    });
    for (int l = 0; l < J; ++l) store_n(y + token * t.stride + channel + l * kLanes, sums[l], lanes);
  }
}

struct Into {
  float *dx, *dw, *dstate;
};

template <int J>
SENNIT_INLINE void backward_columns(const PlaneConvTask& t, const float* state, const float* dy, const Into& into,
                                    int64_t channel, int64_t lanes) {
  for (int64_t token = 0; token < t.length; ++token) {
    vf d[J], own[J], d_own[J];
    load_own(t, token, channel, lanes, own);
    for (int l = 0; l < J; ++l) {
      d[l] = load_n(dy + token * t.stride + channel + l * kLanes, lanes);
      d_own[l] = zero();
    }
    each_tap(t, token, [&](int64_t row, int64_t tap) {
      const float* in = input_row(t, state, row, channel);
      float* const din = row < 0 ? into.dstate : into.dx;
      const int64_t at = (row < 0 ? t.kept + row : row) * t.stride + channel, weight = tap * t.stride + channel;
      for (int l = 0; l < J; ++l) {
        const vf back = load_n(t.w + weight + l * kLanes, lanes) * d[l];
        if (din) add_n(din + at + l * kLanes, back, lanes);
        d_own[l] = d_own[l] - back;
        if (into.dw) add_n(into.dw + weight + l * kLanes, (load_n(in + l * kLanes, lanes) - own[l]) * d[l], lanes);
      }
    });
    for (int l = 0; l < J && t.differences; ++l)
      add_n(into.dx + token * t.stride + channel + l * kLanes, d_own[l], lanes);
  }
}

template <class Body>  // body.template operator()<J>(channel, lanes)
void for_columns(int64_t channels, Body&& body) {
  constexpr int64_t kMany = kVectors * kLanes;
  int64_t at = 0;
  for (; at + kMany <= channels; at += kMany) body.template operator()<kVectors>(at, kLanes);
  for (; at < channels; at += kLanes)
    body.template operator()<1>(at, at + kLanes <= channels ? int64_t{kLanes} : channels - at);
}

void forward(const PlaneConvTask& t, const float* state, float* y) {
  for_columns(t.channels, [&]<int J>(int64_t at, int64_t lanes) { forward_columns<J>(t, state, y, at, lanes); });
}

void backward(const PlaneConvTask& t, const float* state, const float* dy, float* dx, float* dw, float* dstate) {
  const Into into{dx, dw, dstate};
  for_columns(t.channels,
              [&]<int J>(int64_t at, int64_t lanes) { backward_columns<J>(t, state, dy, into, at, lanes); });
}

}  // namespace

const PlaneConv plane_conv_table = {.forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
