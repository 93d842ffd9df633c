#pragma once
#include "sequence/batch.h"

namespace sennit {

// Attention without queries times keys (AFT-conv, Zhai et al., arXiv:2105.14103, section 3.3), channel by channel:
//   y_t = sum_{s<=t} exp(k_s + w_{t-s}) v_s / sum_{s<=t} exp(k_s + w_{t-s}),   w = 0 from `window` on
// k, v [N, H d]; w [H, window], which the channels of a head share. States, from index `field`: the logarithm of the
// sum of exponentials and the mean of the tokens beyond the window [1, H d], and the last `window` rows of k and of v
// [window, H d].
Var aft(const Var& k, const Var& v, const Var& w, const Batch& batch, size_t field);

// What stands in k's state for tokens before the first: no key that is trained comes near it.
inline constexpr float kAftNothing = -1e3f;

}  // namespace sennit
