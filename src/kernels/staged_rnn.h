#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Recurrent cells of two layers a step: gates of the first are fed by the state h [dim], those of the second by the
// vector m [dim] that the first makes, through p = x_t + h_{t-1} R_1 and p = x_t + m_t R_2; others are x_t alone.
//   lem  Long expressive memory (Rusch et al., arXiv:2110.04744, eq. 3): m = z' = z + limit sigmoid(p_1) (tanh(p_2) -
//   z),
//        h' = h + limit sigmoid(p_0) (tanh(p_3) - h);   gates 0, 1, 2 of the first layer, 3 of the second; states h, z
//   cfc  Closed-form continuous-time (Hasani et al., arXiv:2106.13898, eq. 10): m = tanh(p_0), s = sigmoid(-limit p_1),
//        h' = s tanh(p_2) + (1 - s) tanh(p_3);   gate 0 of the first layer, 1, 2, 3 of the second
//   elm  Expressive leaky memory (Spieler et al., arXiv:2306.16922, eqs. 1 to 4): m = relu(p_0),
//        h' = x_2 h + x_3 tanh(p_1);   gate 0 of the first layer, 1 of the second, 2 and 3 not fed
enum class StagedCell { lem, cfc, elm };

inline constexpr int64_t kStagedGates = 4;
inline constexpr int64_t staged_first(StagedCell cell) {
  return cell == StagedCell::lem ? 3 : 1;
}  // gates fed by h
inline constexpr int64_t staged_second(StagedCell cell) {
  return cell == StagedCell::cfc ? 3 : 1;
}  // then, by m
inline constexpr int64_t staged_states(StagedCell cell) {
  return cell == StagedCell::lem ? 2 : 1;
}

struct StagedRnnTask {
  StagedCell cell;
  float limit;
  const float* x;  // [length, 4 dim], rows x_stride apart
  const float*
      r;  // [dim, 4 dim]: R_1 and R_2 side by side, gate by gate; columns of gates that are not fed are not read
  int64_t x_stride, length, dim;
};

// A state is [states, dim]; s0 == nullptr is zeros. s_end may be s0. y = h.
struct StagedRnn {
  int64_t (*scratch_floats)(const StagedRnnTask&);
  int64_t (*backward_scratch_floats)(const StagedRnnTask&);  // grows with length
  void (*forward)(const StagedRnnTask&, const float* s0, float* s_end, float* y, int64_t y_stride, float* scratch);
  // Adds into dx (with the strides of x), dr and, unless nullptr, ds0; ds_end == nullptr stands for zeros.
  void (*backward)(const StagedRnnTask&, const float* s0, const float* dy, int64_t dy_stride, const float* ds_end,
                   float* dx, float* dr, float* ds0, float* scratch);
};

SENNIT_KERNEL_TABLE(StagedRnn, staged_rnn)

}  // namespace sennit::kernels
