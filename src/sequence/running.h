#pragma once
#include "sequence/batch.h"

// What recurrences of several mixers are made of: quantities that run along a sequence, one to a channel.
namespace sennit {

// A softmax over the tokens up to each one. The running mean a_t = sum_{s<=t} softmax_s(k_1 ... k_t) v_s is the
// recurrence a_t = exp(log_decay_t) a_{t-1} + weight_t v_t, where weight is in (0, 1]: nothing overflows whatever the k
// [N, C]. State: the logarithm of the sum of exponentials [1, C].
struct RunningSoftmax {
  Var weight, log_decay;  // [N, C]
};
RunningSoftmax running_softmax(const Var& k, const Batch& batch, size_t field);

// Cosines and sines of the running sums of `turns` [N, H K]: [N, H 2K], the cosines of a head before its sines. State:
// the angle in
// [-pi, pi], [1, H K].
Var running_phase(const Var& turns, int64_t heads, const Batch& batch, size_t field);

}  // namespace sennit
