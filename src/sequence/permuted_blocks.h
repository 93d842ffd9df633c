#pragma once
#include "sequence/column_mass.h"

namespace sennit {

// PBS-Attn, "Sparser Block-Sparse Attention via Token Permutation" (Wang et al., arXiv:2510.21270): attention does not
// care in which order keys and values come. So within segments of the prompt keys are sorted by the weight that the
// last queries give them, blocks are cut out of the sorted keys, and the heavy keys stand together in few of them. Each
// block of queries takes the blocks that hold `mass` of softmax(mean query . mean key), the block of the first token,
// and of its own segment everything that is not after it. For prompts that are there whole: the order of all keys hangs
// on the last queries. Memory: 4 bytes a head for each pair of blocks that is taken.
struct PermutedBlockSettings {
  int64_t block = 64;      // keys, and queries
  int64_t segment = 1024;  // keys that are sorted among themselves; a multiple of `block`
  double mass = 0.95;      // of the scores of blocks; 1: all blocks
  bool sorted = true;      // otherwise keys stay where they are
};

class PermutedBlocks {
 public:
  // q [N, heads dk], keys [.., kv_heads dk], in f32, without linear biases; as many queries as keys. Throws Error for
  // blocks that do not divide segments, and masses that are no part of 1.
  PermutedBlocks(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                 const SparseAttentionOptions& options, const PermutedBlockSettings& settings);

  // The places of a head's keys, block after block, ascending within each.
  const std::vector<int32_t>& order(int64_t head) const { return heads_[static_cast<size_t>(head)].order; }
  // Of the blocks before the queries' own segments, that part which is taken.
  double kept() const;
  TileSource tiles() const;  // for sparse_attention() over that one segment

 private:
  struct Head {
    std::vector<int32_t> order;
    std::vector<std::vector<int32_t>> readers;  // of each block, the blocks of queries that take it, ascending
  };
  struct Operands {
    const Tensor &q, &keys;
    const AttentionSegment& segment;
    const SparseAttentionOptions& options;
  };
  void sort(Head& head, int64_t index, const Operands& of, float* scratch) const;
  void choose(Head& head, int64_t index, const Operands& of) const;
  int64_t blocks_before(int64_t query_block) const;

  PermutedBlockSettings settings_;
  int64_t n_;
  std::vector<Head> heads_;
};

}  // namespace sennit
