#pragma once
#include "sequence/plane.h"

namespace sennit {

// Depthwise convolution over tokens that are scattered over a plane: y[t, c] = sum over taps of w[tap, c] x[s, c], s
// the token that stands, in t's sequence, where the tap looks from t's place; nothing where there is none. x [N, C], w
// [taps, C], taps row after row as in `reach`, of which `columns` is not used. Throws Error when two tokens of a
// sequence have one place.
Var place_conv(const Var& x, const Var& weights, const Neighbours& reach, std::span<const Segment> segments,
               std::span<const Place> places);

}  // namespace sennit
