#pragma once
#include <cstdint>

#include "kernels/cell.h"
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
// A fresh state is zeros, and -inf for m.
enum class RnnCell { elman, lstm, gru, slstm };

inline constexpr int64_t rnn_gates(RnnCell cell) {
  return cell == RnnCell::elman ? 1 : cell == RnnCell::gru ? 3 : 4;
}
inline constexpr int64_t rnn_states(RnnCell cell) {
  return cell == RnnCell::lstm ? 2 : cell == RnnCell::slstm ? 4 : 1;
}
// Numbers a channel that the way back asks for of a token: p of the gates, and of gru's gate n both u and x.
inline constexpr int64_t rnn_kept(RnnCell cell) {
  return cell == RnnCell::elman ? 1 : 4;
}

struct Rnn {
  CellFunctions cells[4];  // by RnnCell; one layer each
};

SENNIT_KERNEL_TABLE(Rnn, rnn)

}  // namespace sennit::kernels
