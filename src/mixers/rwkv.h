#pragma once
#include <cmath>

#include "mixers/heads.h"

namespace sennit::mixers {

// How RWKV's channels are told apart at the start: from + by * place^power, where place runs from 0 to 1 over the channels.
inline Tensor channel_ramp(int64_t width, double from, double by, double power) {
  Tensor t({width});
  for (int64_t c = 0; c < width; ++c)
    t.data()[c] = static_cast<float>(from + by * std::pow(static_cast<double>(c) / static_cast<double>(width), power));
  return t;
}
// The mix of a token with the one before it: from the latter to the token itself, steeper in deeper layers.
inline Tensor initial_mix(int64_t width, double steepness, int64_t depth) {
  return channel_ramp(width, 1, -1, steepness / (1 + static_cast<double>(depth)));
}

}  // namespace sennit::mixers
