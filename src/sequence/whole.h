#pragma once
#include "sequence/batch.h"

// What mixers that read both ways are made of: quantities of whole sequences, one to a channel, of which every row of
// the sequence is told.
namespace sennit {

// Of x [N, C]: the sum of its sequence's rows, at every row.
Var sequence_sums(const Var& x, std::span<const Segment> segments);

// The mean of each sequence's rows, or zeros where it has none: [N, C] -> [sequences, C].
Var sequence_means(const Var& x, std::span<const Segment> segments);

// A softmax down each channel of each sequence: exp(x_t) / sum_s exp(x_s), whatever the size of x [N, C].
Var sequence_softmax(const Var& x, std::span<const Segment> segments);

// Linear attention that reads both ways: y_t = (sum_s k_s v_s^T)^T q_t in each head. q, k [N, H K], v [N, H V] -> [N, H
// V].
Var whole_products(const Var& q, const Var& k, const Var& v, std::span<const Segment> segments, int64_t heads);

}  // namespace sennit
