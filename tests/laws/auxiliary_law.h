#pragma once
#include "laws/mixer_laws.h"

namespace sennit::laws {

// Auxiliary losses are those of the definition, teach what they say they teach, and reach nothing else: neither the
// input nor any other parameter. A parameter that is taught has such a loss.
std::string auxiliary_losses(const MixerCase& c, Pattern pattern);

}  // namespace sennit::laws
