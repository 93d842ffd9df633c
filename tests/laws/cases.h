#pragma once
#include "laws/harness.h"

// What the laws of mixers are written with.
namespace sennit::laws {

std::string off_by(const char* what, const Distance& d, double allowed, int64_t n);

// Runs `body(mixer, sample, definition, allowed, rng)` over lengths and violences, in hostile memory; stops at the first
// complaint. `allowed` is the budget.
using SampleBody = std::function<std::string(Mixer&, const Sample&, const naive::Matrix& definition, double allowed, Rng)>;
std::string over_lengths(const MixerCase& c, Pattern pattern, const SampleBody& body);

}  // namespace sennit::laws
