#pragma once
#include <cstdint>

#include "kernels/cached.h"
#include "kernels/level.h"

namespace sennit::kernels {

// Rows in ascending order: first, first + 1, ..., first + count - 1, or that many entries of a list from entry `first`
// on.
struct RowSet {
  int64_t first = 0, count = 0;
  bool listed = false;
};

inline constexpr int64_t kTileKeys = 64;  // at most, in a tile

// A few keys and the queries that look at them.
struct KeyTile {
  RowSet keys, queries;
  int64_t near, far;  // a query that stands d places after a key sees it when near <= d < far
  int64_t column;     // of SparseAttentionTask::tops
};

// Attention of one head over one segment, o_i = sum_j softmax_j(s_ij) v_j with s_ij = scale q_i . k_j
// - alibi |i + offset - j|, over the keys that the tiles show to query i, each key in one tile at most. Tiles are taken
// in their order with a running maximum, and summed over spans of keys, as in kernels/attention.h: a query whose tiles
// are whole blocks of kTileKeys keys, from the first on, gets the bits of dense attention over these keys.
struct SparseAttentionTask {
  const float* q = nullptr;               // [queries, key_dim], [keys, key_dim], [keys, value_dim]; rows q_stride, ...
  const void *k = nullptr, *v = nullptr;  // units apart: floats, or what `format` keeps them in
  int64_t q_stride = 0, k_stride = 0, v_stride = 0;
  int64_t key_dim = 1, value_dim = 1;
  int64_t offset = 0;  // place of query 0 minus that of key 0
  float scale = 1, alibi = 0;
  int64_t begin = 0, end = 0;  // the queries that the tiles speak of
  const KeyTile* tiles = nullptr;
  int64_t tile_count = 0;
  const int32_t *key_list = nullptr, *query_list = nullptr;
  float* tops = nullptr;  // when given: the highest score of a query in its tiles of each column, where that is higher
                          // than what stands at tops[(query - begin) * tops_stride + column]
  int64_t tops_stride = 0;
  CacheFormat format = CacheFormat::f32;  // of keys and values; backward wants f32
};

struct SparseAttention {
  int64_t (*scratch_floats)(const SparseAttentionTask& task);  // enough for either call

  // Rows [begin, end) of o (row i at o + i * o_stride) and their stat[i] = ln sum_j exp s_ij; o = 0 and stat = -inf
  // where a query sees nothing. Returns how many pairs of query and key were computed.
  int64_t (*forward)(const SparseAttentionTask& task, float* o, int64_t o_stride, float* stat, float* scratch);

  // Adds the gradients of queries [begin, end) to dq, dk, dv, given d_o (rows as those of o) and what forward returned.
  void (*backward)(const SparseAttentionTask& task, const float* o, const float* d_o, int64_t o_stride,
                   const float* stat, float* dq, float* dk, float* dv, int64_t dq_stride, int64_t dk_stride,
                   int64_t dv_stride, float* scratch);

  // out[i * out_stride + j] = q_i . k_j for `rows` rows of q and `keys` of k, of `dim` numbers; `scratch` holds
  // kTileKeys x dim floats. An element depends on its two rows alone, to the bit.
  void (*scores)(const float* q, int64_t q_stride, int64_t rows, const float* k, int64_t k_stride, int64_t keys,
                 int64_t dim, float* out, int64_t out_stride, float* scratch);
};

SENNIT_KERNEL_TABLE(SparseAttention, sparse_attention)

}  // namespace sennit::kernels
