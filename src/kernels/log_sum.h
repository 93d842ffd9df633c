#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// The running logarithm of a sum of exponentials of every channel by itself, L_t = ln(exp(L_{t-1}) + exp(k_t)), told by
// how far each token stands above what came before it: u_t = min(k_t - L_{t-1}, 100). Its share of the sum is then
// sigmoid(u_t), and that of everything before sigmoid(-u_t). For one sequence: k, u [length, channels] with strides in
// floats, states [channels]. A caller may split the channels by moving every pointer.
struct LogSumTask {
  const float* k;
  int64_t k_stride;
  int64_t length, channels;
};

struct LogSum {
  // state == nullptr stands for -inf, an empty sum; state_end may be state.
  void (*forward)(const LogSumTask&, const float* state, float* state_end, float* u, int64_t u_stride);
  // `u` is what forward gave. Adds into dk (with the strides of k) and, unless nullptr, into d_state, which may not be
  // d_state_end (nullptr: zeros).
  void (*backward)(const LogSumTask&, const float* u, int64_t u_stride, const float* du, int64_t du_stride,
                   const float* d_state_end, float* dk, float* d_state);
};

SENNIT_KERNEL_TABLE(LogSum, log_sum)

}  // namespace sennit::kernels
