#include "laws/mixer_laws.h"

#include <algorithm>

namespace sennit::laws {

bool MixerLaw::concerns(const MixerCase& c, Pattern pattern) const {
  switch (patterns) {
    case LawFor::every_pattern:
      return true;
    case LawFor::first_pattern:
      return pattern == c.patterns.front();
    case LawFor::causal:
      return pattern == Pattern::causal;
    case LawFor::states:
      return pattern == Pattern::causal && c.stateful;
    case LawFor::cross:
      return pattern == Pattern::cross;
  }
  return false;
}

bool MixerLaw::concerns(const MixerCase& c) const {
  return std::any_of(c.patterns.begin(), c.patterns.end(), [&](Pattern p) { return concerns(c, p); });
}

std::string MixerLaw::broken_by(const MixerCase& c) const {
  for (const Pattern p : c.patterns) {
    const std::string broken = concerns(c, p) ? check(c, p) : "";
    if (!broken.empty()) return fmt::format("{}: {}", to_string(p), broken);
  }
  return "";
}

const std::vector<MixerLaw>& mixer_laws() {
  static const std::vector<MixerLaw> laws = [] {
    std::vector<MixerLaw> all = whole_laws();
    for (auto more : {gradient_laws(), state_laws(), choice_laws()}) all.insert(all.end(), more.begin(), more.end());
    return all;
  }();
  return laws;
}

}  // namespace sennit::laws
