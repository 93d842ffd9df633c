#include <algorithm>

#include "mixers/mixer.h"

namespace sennit {

bool Mixer::rewinds() const {
  const StateSpec spec = state_spec();
  return std::all_of(spec.begin(), spec.end(), [](const StateField& f) { return f.growth == Growth::per_token; });
}

namespace mixers {

void check_pattern(const MixerInfo& info, const char* name, Pattern pattern) {
  if (std::find(info.patterns.begin(), info.patterns.end(), pattern) == info.patterns.end())
    fail({name, "a pattern that this mixer supports", to_string(pattern)});
}

}  // namespace mixers
}  // namespace sennit
