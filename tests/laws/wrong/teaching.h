#pragma once
#include "laws/mixer_laws.h"

// y = W x, and a second map that an auxiliary loss teaches to do the same; whole and with a mistake in the teaching.
namespace sennit::laws {

enum class Teaching {
  whole,
  leaks,   // the loss moves what is learned from, too
  halved,  // half the gradient
  silent   // no loss
};
MixerCase teaching(Teaching how);

}  // namespace sennit::laws
