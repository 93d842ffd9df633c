#pragma once
#include "sequence/batch.h"

// The recurrent cores of mixers over a packed batch. Each carries one constant-size state field of every segment (index
// `field` of its LayerState), picks the chunked or the token-by-token kernel by the segment's length (always the latter
// in exact mode), and sends gradients to its inputs and to the states that it started from.
namespace sennit {

struct RecurrenceOptions {
  int64_t heads;
  float scale = 1;
  size_t field = 0;
  bool reads_before = false;  // of gla: a token reads the state before it fades and is written to
  bool paired = false;        // of gla: by products of bf16 pairs in long segments, also where wants_pairs() does not
};

// Gated linear attention (Yang et al., arXiv:2312.06635): S_t = diag(exp g_t) S_{t-1} + k_t v_t^T, y_t = scale S_t^T
// q_t (S_{t-1} in its place with reads_before: Peng et al., arXiv:2404.05892). q, k [N, H K], v [N, H V], g the log
// decay: undefined (none), [N, H] (a number a head) or [N, H K]. State [H, K, V].
Var gla(const Var& q, const Var& k, const Var& v, const Var& g, const Batch& batch, const RecurrenceOptions& options);

// Gated delta rule (Yang et al., arXiv:2412.06464): S_t = exp(g_t) (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,
// y_t = scale S_t^T q_t; beta [N, H], g [N, H] or undefined (plain delta rule). State [H, K, V].
Var gated_delta(const Var& q, const Var& k, const Var& v, const Var& beta, const Var& g, const Batch& batch,
                const RecurrenceOptions& options);

// Diagonal plus rank one (RWKV-7, Peng et al., arXiv:2503.14456): S_t = diag(exp g_t) S_{t-1} + b_t (a_t^T S_{t-1}) +
// k_t v_t^T, y_t = scale S_t^T q_t; q, k, a, b, g [N, H K], v [N, H V]. State [H, K, V].
struct DplrInputs {
  const Var &q, &k, &v, &a, &b, &g;
};
Var dplr(const DplrInputs& in, const Batch& batch, const RecurrenceOptions& options);

// Selective scan (Gu & Dao, arXiv:2312.00752): h_cn = exp(dt_c A_cn) h_cn + dt_c B_n x_c, y_c = sum_n C_n h_cn + D_c
// x_c. x, dt [N, C], A [C, S] (negative), B, C [N, S], D [C]. State [C, S].
struct SelectiveScanInputs {
  const Var &x, &dt, &a, &b, &c, &d;
};
Var selective_scan(const SelectiveScanInputs& in, const Batch& batch, size_t field);

// Complex modes that do not depend on the data (S4D, Gu et al., arXiv:2206.11893): h_cn <- l_cn h_cn + u_c, y_c = sum_n
// Re(w_cn h_cn); u [N, C], the real and imaginary parts of l and w [C, M]. State [C, 2, M].
struct ModalScanInputs {
  const Var &u, &lr, &li, &wr, &wi;
};
Var modal_scan(const ModalScanInputs& in, const Batch& batch, size_t field);

// The same modes coupled by one real number (S4, Gu et al., arXiv:2111.00396, bilinear; kernels/dplr_modes.h has the
// equations). u [N, C]; a, b, e, p, c [C, 2 M], real parts before imaginary ones. State [C, 2, M].
struct DplrModesInputs {
  const Var &u, &a, &b, &e, &p, &c;
};
Var dplr_modes(const DplrModesInputs& in, const Batch& batch, size_t field);

// A linear system of fixed coefficients a [Q, Q] and b [Q], for every channel: m_t = a m_{t-1} + b u_t (LMU, Chilkuri &
// Eliasmith, arXiv:2102.11417). u [N, C] -> m [N, Q C], the channels of an order side by side. State [Q, C].
Var lti_scan(const Var& u, const Tensor& a, const Tensor& b, const Batch& batch, size_t field);

// h_t = exp(g_t) h_{t-1} + x_t of every channel by itself; x, g <= 0 [N, C]. State [1, C].
Var diagonal_scan(const Var& x, const Var& g, const Batch& batch, size_t field);

// Causal depthwise convolution: y_tc = bias_c + sum_j w_cj x_{t-W+1+j, c}; w [C, W], bias [C] or undefined. State: the
// last W - 1 inputs [W - 1, C].
Var short_conv(const Var& x, const Var& weight, const Var& bias, const Batch& batch, size_t field);

}  // namespace sennit
