#include <algorithm>

#include "mixers/mixer.h"

namespace sennit::mixers {

void check_pattern(const MixerInfo& info, const char* name, Pattern pattern) {
  if (std::find(info.patterns.begin(), info.patterns.end(), pattern) == info.patterns.end())
    fail({name, "a pattern that this mixer supports", to_string(pattern)});
}

}  // namespace sennit::mixers
