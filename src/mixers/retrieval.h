#pragma once
#include "mixers/mixer.h"
#include "nn/naive_sequence.h"
#include "sequence/attention.h"

// What Hopfield networks share (Ramsauer et al., arXiv:2008.02217, equation 3): a state moves to what it retrieves of
// the stored patterns, again and again.
namespace sennit::mixers {

struct Retrieval {
  int64_t updates = 1;   // at most, the last of which reads the values
  double beta = 0;       // the inverse temperature; 0 until set_beta()
  double tolerance = 0;  // a head's state that an update moved by no more is there already and stays; 0: all are made

  Fields fields();
  void set_beta(int64_t dim);  // 1 / sqrt(dim) where none was given
  AttentionOptions attention(int64_t heads, bool causal) const;
};

// r <- softmax(beta r K^T) K from r = `state` [N, heads d], updates - 1 times at most.
Var settled(Var state, std::span<const Var> keys, std::span<const AttentionSegment> segments,
            const AttentionOptions& one, const Retrieval& retrieval);
naive::Matrix naive_settled(naive::Matrix state, const naive::Matrix& keys, const naive::AttentionView& view,
                            const Retrieval& retrieval);

}  // namespace sennit::mixers
