#pragma once
#include "sequence/batch.h"

namespace sennit {

// Learned weights of near tokens, which the channels of a head share: of their distance, or of each pair of positions.
struct AftWeights {
  Var distances;        // [H, window], or undefined and
  Var readers, read{};  // [positions, H r]: w_ts = readers_t . read_s
  int64_t heads, window;
};

// Attention without queries times keys (AFT, Zhai et al., arXiv:2105.14103, sections 3.1 to 3.3), channel by channel:
//   y_t = sum_{s<=t} exp(k_s + w_ts) v_s / sum_{s<=t} exp(k_s + w_ts),   w_ts = 0 for t - s >= window
// k, v [N, H d]. States, from index `field`: the logarithm of the sum of exponentials and the mean of the tokens beyond
// the window [1, H d], and the last `window` rows of k and of v [window, H d]. Weights of pairs are made a row at a
// time and never stored. Throws Error for a position that `readers` has no row for.
Var aft(const Var& k, const Var& v, const AftWeights& w, const Batch& batch, size_t field);

// What stands in k's state for tokens before the first: no key that is trained comes near it.
inline constexpr float kAftNothing = -1e3f;

}  // namespace sennit
