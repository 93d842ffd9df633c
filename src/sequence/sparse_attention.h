#pragma once
#include <functional>
#include <span>
#include <vector>

#include "kernels/sparse_attention.h"
#include "sequence/attention.h"
#include "tensor/pooled.h"

namespace sennit {

// Attention of packed segments over chosen keys only: exact on what is chosen, at a cost of what is chosen. What a
// query looks at is told by tiles of up to 64 keys (kernels/sparse_attention.h), which are made for a few queries at a
// time and never kept. Queries and keys are named by their places: key j of a segment stands at place j, query i at
// place i + offset. The formula and the tiles' order of sums are those of attention(): where everything is chosen in
// whole blocks of 64, the bits are too.

// Places begin, ..., end - 1.
struct Places {
  int64_t begin, end;
};
inline constexpr int64_t kEverywhere = int64_t{1} << 40;

// The tiles of some queries of a segment, in the order in which they are summed. No query may see a key in two tiles.
class TileList {
 public:
  TileList(Places queries, int64_t keys, int64_t offset) : queries_(queries), keys_(keys), offset_(offset) {}

  Places queries() const { return queries_; }  // the tiles speak of these alone
  int64_t keys() const { return keys_; }

  // Keys that follow one another, cut at every 64th place. A query that stands d places after a key sees it when
  // near <= d < far. What lies outside the lists' queries and keys is left out.
  void add(Places keys, Places queries, int64_t near, int64_t far = kEverywhere, int64_t column = 0);
  void add(Places keys, std::span<const int32_t> queries, int64_t near, int64_t far = kEverywhere, int64_t column = 0);
  // Keys at any ascending places, by 64.
  void add(std::span<const int32_t> keys, Places queries, int64_t near, int64_t far = kEverywhere);
  void add(std::span<const int32_t> keys, std::span<const int32_t> queries, int64_t near, int64_t far = kEverywhere);

  void describe(kernels::SparseAttentionTask& task) const;

 private:
  kernels::RowSet rows_of(Places queries) const;
  kernels::RowSet rows_of(std::span<const int32_t> queries);
  template <class Queries>
  void add_runs(Places keys, Queries&& queries_of, int64_t near, int64_t far, int64_t column);
  void add_lists(std::span<const int32_t> keys, kernels::RowSet queries, int64_t near, int64_t far);

  Places queries_;
  int64_t keys_, offset_;
  Pooled<int32_t> key_list_, query_list_;
  Pooled<kernels::KeyTile> tiles_;
};

// Adds the tiles of `head` over the list's queries of a segment. Called from several threads, forward and backward, it
// must say the same each time, and a query's tiles and their order must not hang on which queries it is asked for.
using TileSource = std::function<void(size_t segment, int64_t head, TileList& tiles)>;

// Any pattern of whole blocks, the block-sparse attention of Dao et al. (arXiv:2205.14135, section 3.3): queries at
// places of block i see keys at places of block j where shown[i * columns + j], and what lies outside is not seen.
struct BlockMask {
  int64_t block, rows, columns;
  std::vector<bool> shown;  // [rows, columns]
  bool causal = true;       // and no later keys
};
TileSource masked_blocks(BlockMask mask);

struct SparseAttentionOptions {
  int64_t heads, kv_heads;  // heads is a multiple of kv_heads; neighbours share a key-value head
  float scale;
  std::span<const float> slopes = {};  // ALiBi, one a head
};
// q [N, heads dk], keys [.., kv_heads dk], values [.., kv_heads dv] -> [N, heads dv]; a cache's rows as in attention()
Var sparse_attention(const Var& q, std::span<const Var> keys, std::span<const Var> values,
                     std::span<const AttentionSegment> segments, const SparseAttentionOptions& options,
                     TileSource source);

// ln sum_j exp(scale q_i . k_j) over the keys shown: [heads, N], -inf where there are none. What part of all weight
// some tiles hold is exp of the difference to another source's. Not differentiated.
Tensor log_sums(const Var& q, std::span<const Var> keys, std::span<const Var> values,
                std::span<const AttentionSegment> segments, const SparseAttentionOptions& options, TileSource source);

// The largest weight that each query gives to a key of each block of `block` keys under full causal attention,
// collected in the same pass over tiles: [N, heads, blocks] of one segment, 0 where it sees nothing of a block. Not
// differentiated. `block` is a multiple of 64 or divides it.
Tensor block_maxima(const Tensor& q, const Tensor& keys, const Tensor& values, const AttentionSegment& segment,
                    const SparseAttentionOptions& options, int64_t block);

}  // namespace sennit
