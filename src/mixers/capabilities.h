#pragma once
#include <algorithm>

#include "mixers/mixer.h"

namespace sennit::mixers {

inline bool is_causal(const MixerInfo& info) {
  return std::find(info.patterns.begin(), info.patterns.end(), Pattern::causal) != info.patterns.end();
}
// Whether a sequence can go on from a state, token by token.
inline bool decodes(const MixerInfo& info) { return is_causal(info) && info.no_state.empty(); }

}  // namespace sennit::mixers
