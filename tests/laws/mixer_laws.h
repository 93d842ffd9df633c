#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "mixers/mixer.h"

// The laws of token mixers, stated once for everything that claims to be one. A law returns "" when it holds and what
// broke, with the case that broke it, when it does not.
namespace sennit::laws {

struct MixerCase {
  std::string name;
  std::function<std::unique_ptr<Mixer>(Rng)> make;  // at d_model
  int64_t d_model = 32;
};

struct MixerLaw {
  const char* name;
  std::string (*check)(const MixerCase&);
};

const std::vector<MixerLaw>& mixer_laws();

// Every registered mixer, with its default options and with each of its named settings.
std::vector<MixerCase> registered_mixers();

}  // namespace sennit::laws
