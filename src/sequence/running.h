#pragma once
#include "sequence/batch.h"

// What recurrences of several mixers are made of: quantities that run along a sequence, one to a channel.
namespace sennit {

// A softmax over the tokens up to each one. The running mean a_t = sum_{s<=t} softmax_s(k_1 ... k_t) v_s is the
// recurrence a_t = exp(log_decay_t) a_{t-1} + weight_t v_t, where weight is in (0, 1]: nothing overflows whatever the k
// [N, C]. `above` is how far k_t stands above the logarithm of the sum of exponentials before it, at most 100: the
// logarithm of the sum up to it is k_t + softplus(-above_t). State: that logarithm [1, C].
struct RunningSoftmax {
  Var weight, log_decay, above;  // [N, C]
};
RunningSoftmax running_softmax(const Var& k, const Batch& batch, size_t field);

// Cosines and sines of the running sums of `turns` [N, H K]: [N, H 2K], the cosines of a head before its sines. State:
// the angle in
// [-pi, pi], [1, H K].
Var running_phase(const Var& turns, int64_t heads, const Batch& batch, size_t field);

}  // namespace sennit
