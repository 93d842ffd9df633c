#pragma once
// The lanes of a recurrent cell's channels. Use only from src/kernels/*.cpp.
#include <cstdint>

#include "kernels/cell.h"
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {

// Lanes [l, l + lanes) of one token on the way forward.
struct Forth {
  const CellToken& t;
  int64_t l, lanes;
  SENNIT_INLINE vf in(int gate) const { return load_n(t.x + gate * t.dim + l, lanes); }
  SENNIT_INLINE vf fed(int gate) const { return load_n(t.p + gate * t.dim + l, lanes); }
  SENNIT_INLINE vf old(int state) const { return load_n(t.before + state * t.dim + l, lanes); }
  SENNIT_INLINE vf limit() const { return set(t.limit); }
  SENNIT_INLINE vf keep(int place, vf value) const {
    store_n(t.p + place * t.dim + l, value, lanes);
    return value;
  }
  // A gate's input and what it is fed, kept as their sum.
  SENNIT_INLINE vf p(int gate) const { return keep(gate, in(gate) + fed(gate)); }
  SENNIT_INLINE void set_state(int state, vf value) const { store_n(t.after + state * t.dim + l, value, lanes); }
  SENNIT_INLINE void set_h(vf h) const {
    set_state(0, h);
    store_n(t.y + l, h, lanes);
  }
};

// And on the way back.
struct Back {
  const CellTokenBack& t;
  int64_t l, lanes;
  SENNIT_INLINE vf p(int place) const { return load_n(t.p + place * t.dim + l, lanes); }
  SENNIT_INLINE vf old(int state) const { return load_n(t.before + state * t.dim + l, lanes); }
  SENNIT_INLINE vf limit() const { return set(t.limit); }
  SENNIT_INLINE vf dh() const { return d(0) + load_n(t.dy + l, lanes); }
  SENNIT_INLINE vf d(int state) const { return load_n(t.d + state * t.dim + l, lanes); }
  SENNIT_INLINE void set_d(int state, vf value) const { store_n(t.d + state * t.dim + l, value, lanes); }
  // The gradients of a gate's input and of what it is fed. p(gate) is gone then.
  SENNIT_INLINE void give(int gate, vf dx, vf du) const {
    add_n(t.dx + gate * t.dim + l, dx, lanes);
    store_n(t.p + gate * t.dim + l, du, lanes);
  }
  SENNIT_INLINE void give(int gate, vf dp) const { give(gate, dp, dp); }
};

// Calls body(lanes) for all lanes of a token's channels.
template <class Lanes, class Token, class Body>
SENNIT_INLINE void for_channels(const Token& t, Body&& body) {
  for_lanes(t.end - t.begin, [&](int64_t l, int64_t k) { body(Lanes{t, t.begin + l, k}); });
}

SENNIT_INLINE vf through_sigmoid(vf s, vf d) {
  return s * (set(1) - s) * d;
}
SENNIT_INLINE vf through_tanh(vf t, vf d) {
  return fnma(t, t, set(1)) * d;
}

}  // namespace sennit::kernels::SENNIT_LEVEL
