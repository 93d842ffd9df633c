#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Recurrent cells of one head, whose state h [dim] feeds back through a matrix of the head's own (FlashRNN, Poeppel et
// al., arXiv:2412.07752). With p = x_t + u_t and u_t = h_{t-1} R, cut into gates of `dim` numbers:
//   elman  h = tanh(p)
//   lstm   c = sigmoid(p_f) c + sigmoid(p_i) tanh(p_z),   h = sigmoid(p_o) tanh(c);   gates i, f, z, o, states h, c
//   gru    h = (1 - z) tanh(x_n + r u_n) + z h,   r = sigmoid(p_r), z = sigmoid(p_z);   gates r, z, n
//   slstm  m = max(a, p_i), a = ln sigmoid(p_f) + m;   c = exp(a - m) c + exp(p_i - m) tanh(p_z),   n = exp(a - m) n +
//   exp(p_i - m),
//          h = sigmoid(p_o) c / n;   gates i, f, z, o, states h, c, n, m (xLSTM, Beck et al., arXiv:2405.04517, eqs. 8
//          to 17)
enum class RnnCell { elman, lstm, gru, slstm };

inline constexpr int64_t rnn_gates(RnnCell cell) {
  return cell == RnnCell::elman ? 1 : cell == RnnCell::gru ? 3 : 4;
}
inline constexpr int64_t rnn_states(RnnCell cell) {
  return cell == RnnCell::lstm ? 2 : cell == RnnCell::slstm ? 4 : 1;
}

struct RnnTask {
  RnnCell cell;
  const float* x;  // [length, gates dim], rows x_stride apart
  const float* r;  // [dim, gates dim]
  int64_t x_stride, length, dim;
};

// A state is [states, dim]; s0 == nullptr is a fresh one: zeros, and -inf for m. s_end may be s0.
struct Rnn {
  int64_t (*scratch_floats)(const RnnTask&);
  int64_t (*backward_scratch_floats)(const RnnTask&);  // grows with length
  void (*forward)(const RnnTask&, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch);  // y = h
  // Adds into dx (with the strides of x), dr and, unless nullptr, ds0; ds_end == nullptr stands for zeros.
  void (*backward)(const RnnTask&, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end, float* dx,
                   float* dr, float* ds0, float* scratch);
};

SENNIT_KERNEL_TABLE(Rnn, rnn)

}  // namespace sennit::kernels
