#pragma once
#include "sequence/attention.h"

namespace sennit {

// The mean, over the queries i of a segment and the groups g, of the divergence of a gate's blocks from attention's,
//   KL(t_ig || p_ig),   p_igb = softmax_b(scale q_ig . k_gb),   t_igb = truth_igb / sum_b truth_igb
// over the whole blocks b before the query's own one, those that have a summary; queries with none, or with no truth,
// do not count. (SeerAttention, Gao et al., arXiv:2410.13276, section 3.2, and arXiv:2506.08889 for queries that are
// not pooled.) queries [N, groups d], summaries [blocks, groups d], truth [segment's queries, groups, all blocks]: [1]
Var block_divergence(const Var& queries, const Var& summaries, const Tensor& truth, const AttentionSegment& segment,
                     int64_t groups, int64_t block, float scale);

}  // namespace sennit
