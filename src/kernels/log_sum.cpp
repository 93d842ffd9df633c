#include "kernels/log_sum.h"

#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr float kMost = 100;  // above it all that came before weighs nothing in f32

void forward(const LogSumTask& t, const float* state, float* state_end, float* u, int64_t u_stride) {
  for_lanes(t.channels, [&](int64_t c, int64_t lanes) {
    vf total = state ? load_n(state + c, lanes) : set(-__builtin_inff());
    for (int64_t i = 0; i < t.length; ++i) {
      const vf k = load_n(t.k + i * t.k_stride + c, lanes), above = k - total;
      store_n(u + i * u_stride + c, min(above, set(kMost)), lanes);
      total = max(k, total) + softplus(-abs(above));
    }
    store_n(state_end + c, total, lanes);
  });
}

void backward(const LogSumTask& t, const float* u, int64_t u_stride, const float* du, int64_t du_stride,
              const float* d_state_end, float* dk, float* d_state) {
  for_lanes(t.channels, [&](int64_t c, int64_t lanes) {
    vf d = d_state_end ? load_n(d_state_end + c, lanes) : zero();
    for (int64_t i = t.length - 1; i >= 0; --i) {
      const vf above = load_n(u + i * u_stride + c, lanes);
      const vf own = select(less(above, set(kMost)), load_n(du + i * du_stride + c, lanes), zero());
      add_n(dk + i * t.k_stride + c, fma(d, sigmoid(above), own), lanes);
      d = fma(d, sigmoid(-above), -own);
    }
    if (d_state) add_n(d_state + c, d, lanes);
  });
}

}  // namespace

const LogSum log_sum_table = {.forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
