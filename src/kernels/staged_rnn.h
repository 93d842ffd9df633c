#pragma once
#include <cstdint>

#include "kernels/cell.h"
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

// Numbers a channel that the way back asks for of a token: p of the fed gates, x of the others, and m, the last one.
inline constexpr int64_t kStagedKept = 5;

struct StagedRnn {
  CellFunctions cells[3];  // by StagedCell; two layers each
};

SENNIT_KERNEL_TABLE(StagedRnn, staged_rnn)

}  // namespace sennit::kernels
