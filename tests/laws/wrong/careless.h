#pragma once
#include "laws/mixer_laws.h"

// A mixer that chooses among blocks, and chooses badly: what it makes of its choice is right, so that only the law of
// choices can tell.
namespace sennit::laws {

enum class Carelessness {
  none,
  takes_first,  // the first blocks, whatever they score
  takes_fewer   // one less than the definition
};
MixerCase careless(Carelessness how);

}  // namespace sennit::laws
