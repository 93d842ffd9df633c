#pragma once
#include <span>

#include "autograd/var.h"
#include "kernels/attention.h"
#include "sequence/batch.h"
#include "sequence/cache.h"

namespace sennit {

using kernels::ScoreMap;

// Exact attention of packed segments, tiled with an online softmax (Milakov & Gimelshein, arXiv:1805.02867;
// Dao et al., arXiv:2205.14135): nothing of size n x n is stored, forward or backward.
//   o_i = sum_j softmax_j(scale q_i . k_j - slope |p_i - p_j|) v_j   over the keys j that query i sees,
// or with another map of the scores to weights (kernels/attention.h has them).
struct AttentionSegment {
  int64_t query_begin, queries;
  size_t source;  // which of `keys` and `values` it looks at
  int64_t key_begin, keys;
  int64_t offset;        // position of its first query minus position of its first key
  int64_t position = 0;  // of its first query, for AttentionOptions::block
};
struct AttentionOptions {
  int64_t heads, kv_heads;  // neighbours share a key-value head, as many each unless `groups` says otherwise
  float scale;
  bool causal = true;
  int64_t window = 0;                  // 0: no limit; else a query sees itself and the window - 1 keys before
  int64_t block = 0;                   // 0: none; else a query sees only keys in its own block of that many positions
  std::span<const float> slopes = {};  // ALiBi, one a head
  ScoreMap map = ScoreMap::softmax;
  float clip_low = 0, clip_high = 1, count_bias = 1, epsilon = 0;  // of the maps
  int64_t power = 2;
  std::span<const int64_t> groups = {};  // heads of each key-value head, at least 1, all `heads` together
  bool exact = true;     // as in kernels::AttentionTask
  bool paired = false;  // softmax: segments of many queries multiply pairs of bf16 (kernels/paired_attention.h)
};

// q [N, heads dk], keys [.., kv_heads dk], values [.., kv_heads dv] -> [N, heads dv]. A source of keys and values may be
// in a cache's format (sequence/cache.h) where nothing is recorded: it is read as it is.
Var attention(const Var& q, std::span<const Var> keys, std::span<const Var> values,
              std::span<const AttentionSegment> segments, const AttentionOptions& options);

// How many pairs of query and key a segment computes: the count its cost is declared by.
int64_t visible_pairs(const AttentionSegment& segment, bool causal, int64_t window, int64_t block = 0);

}  // namespace sennit
