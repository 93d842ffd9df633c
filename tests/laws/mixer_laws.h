#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mixers/mixer.h"

// The laws of token mixers, stated once for everything that claims to be one. A law returns "" when it holds and what
// broke, with the case that broke it, when it does not. It is held for every pattern that a mixer declares and the law
// is for.
namespace sennit::laws {

struct MixerCase {
  std::string name;
  std::function<std::unique_ptr<Mixer>(Rng)> make;  // at d_model
  int64_t d_model = 32;
  std::vector<Pattern> patterns = {Pattern::causal};
  bool stateful = true;  // causal sequences go on from a state
  int64_t columns = 1;   // bidirectional sequences are whole rows of so many tokens

  // The shortest length of at least n tokens that a sequence may have.
  int64_t whole(Pattern pattern, int64_t n) const {
    return pattern == Pattern::bidirectional ? (n + columns - 1) / columns * columns : n;
  }
};

enum class LawFor {
  every_pattern,
  first_pattern,  // of those declared
  causal,
  states,  // causal, with a state
  cross
};

struct MixerLaw {
  const char* name;
  LawFor patterns;
  std::string (*check)(const MixerCase&, Pattern);

  bool concerns(const MixerCase& c, Pattern pattern) const;
  bool concerns(const MixerCase& c) const;          // some pattern that it declares
  std::string broken_by(const MixerCase& c) const;  // in any pattern that it concerns; names the pattern
};

const std::vector<MixerLaw>& mixer_laws();

// Those of sequences run whole, of gradients, of states and splits, and of mixers that choose or teach themselves.
std::vector<MixerLaw> whole_laws();
std::vector<MixerLaw> gradient_laws();
std::vector<MixerLaw> state_laws();
std::vector<MixerLaw> choice_laws();

// Every registered mixer, with its default options and with each of its named settings.
std::vector<MixerCase> registered_mixers();

}  // namespace sennit::laws
