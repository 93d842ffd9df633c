#pragma once
#include <cstdint>

#include "kernels/cached.h"
#include "kernels/level.h"

namespace sennit::kernels {

// How the weights w_ij of query i come from its scores s_ij, of the n_i keys that it sees:
//   softmax  exp(s_ij) / Z_i, Z_i = sum_j exp(s_ij)
//   clipped  that to a p + b between 0 and 1, with b = -clip_low / n_i and a = clip_high - b: weights can be exactly 0
//   (Bondarenko
//            et al., "Quantizable Transformers", arXiv:2306.12929, eq. 4)
//   sigmoid  sigmoid(s_ij - count_bias ln n_i): no sum at all (Ramapuram et al., "Theory, Analysis, and Best Practices
//   for
//            Sigmoid Self-Attention", arXiv:2409.04431)
//   power    s_ij^p / (epsilon + sum_j s_ij^p) for an even p: no exponential (Zimerman et al., "Power-Softmax",
//   arXiv:2410.09457)
enum class ScoreMap { softmax, clipped, sigmoid, power };

// Exact attention of one head over one segment, o_i = sum_j w_ij v_j with
// s_ij = scale q_i . k_j - alibi |i + offset - j| over the keys that query i sees, in blocks of keys with a running
// maximum (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867; Dao et al.,
// "FlashAttention", arXiv:2205.14135), so that nothing of size queries x keys is stored. The bias is that of
// Press et al., "Train Short, Test Long" (arXiv:2108.12409).
struct AttentionTask {
  const float* q;  // [queries, key_dim], [keys, key_dim], [keys, value_dim]; rows q_stride, ... units apart: floats, or
  const void *k, *v;  // what `format` keeps them in
  int64_t q_stride, k_stride, v_stride;
  int64_t queries, keys, key_dim, value_dim;  // dimensions of 1 or more
  int64_t offset = 0;                         // position of query 0 minus position of key 0
  bool causal = false;                        // query i sees key j only if j <= i + offset
  int64_t window = 0;                         // 0: no limit; else only if j > i + offset - window
  int64_t block = 0;                          // 0: none; else only keys of the query's own block of that many positions
  int64_t position = 0;                       // of query 0, for blocks
  float scale = 1;
  float alibi = 0;
  ScoreMap map = ScoreMap::softmax;
  float clip_low = 0, clip_high = 1;  // of ScoreMap::clipped
  float count_bias = 1;               // of ScoreMap::sigmoid
  int64_t power = 2;                  // of ScoreMap::power, as epsilon
  float epsilon = 0;
  CacheFormat format = CacheFormat::f32;  // of keys and values; backward wants f32
  // The products of q and k are summed in the order of dimensions, however many queries there are; else a few of them
  // may be summed in another, and meet q8_0 as numbers of 15 bits and a sign.
  bool exact = true;
  bool together = false;  // all queries stand where query 0 does: heads that share keys and values; not for backward
};

// Query rows that a call of `forward` works on at a time: ranges of a multiple of it waste nothing.
inline constexpr int64_t kAttentionRows = 96;

// The softmax of a long row is summed over spans of this many keys, each with a running maximum of its own, and the
// spans' sums are merged in order: (m, l, o) and (m', l', o') to M = max(m, m'), e^(m-M) l + e^(m'-M) l' and the same
// of o (Sanovar et al., "Lean Attention", arXiv:2405.10480, section IV). So the spans of one row can go to many
// threads.
inline constexpr int64_t kAttentionSpan = 1024;

struct Attention {
  int64_t (*scratch_floats)(const AttentionTask& task);  // enough for any call

  // Rows [begin, end) of o (row i at o + i * o_stride) and stat[i], which backward wants: ln Z_i of softmax and
  // clipped, what sigmoid takes from the scores, the power's root of the sum of powers. o = 0 where a query sees
  // nothing (and ln Z = -inf). A row depends on its query and the keys it sees alone, to the bit: key blocks are
  // counted from key 0, and what is masked takes no part.
  void (*forward)(const AttentionTask& task, int64_t begin, int64_t end, float* o, int64_t o_stride, float* stat,
                  float* scratch);

  // How many spans of keys the task's rows are summed over; 1 where keys are not split: other maps, windows, blocks.
  int64_t (*spans)(const AttentionTask& task);
  // What one span gives to rows [begin, end) of some heads, `sums_apart` floats from one head to the next: for every
  // row its o, undivided, then m and l. Where their keys and values stand side by side, memory is read in order. The
  // tasks differ in q, k, v and alibi alone; heads * (end - begin) is up to kAttentionRows.
  void (*forward_span)(const AttentionTask* tasks, int64_t heads, int64_t begin, int64_t end, int64_t span, float* sums,
                       int64_t sums_apart, float* scratch);
  // What forward returns, to the bit, from a head's sums of all spans: sums[spans][end - begin][value_dim + 2].
  void (*fold_spans)(const AttentionTask& task, int64_t begin, int64_t end, const float* sums, float* o,
                     int64_t o_stride, float* stat);

  // Adds the gradients of all queries to dq, dk, dv, given d_o (rows as those of o) and what forward returned:
  // dv_j += sum_i w_ij do_i, dw_ij = do_i . v_j, ds from dw (of softmax: w (dw - do_i . o_i)), dq_i += scale sum_j
  // ds_ij k_j, dk_j += scale sum_i ds_ij q_i.
  void (*backward)(const AttentionTask& task, const float* o, const float* d_o, int64_t o_stride, const float* stat,
                   float* dq, float* dk, float* dv, int64_t dq_stride, int64_t dk_stride, int64_t dv_stride,
                   float* scratch);
};

SENNIT_KERNEL_TABLE(Attention, attention)

}  // namespace sennit::kernels
