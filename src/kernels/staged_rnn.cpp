#include "kernels/staged_rnn.h"

#include "kernels/cell_lanes.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kMiddle = 4;  // where m is kept

// middle: m. step: the new states from m. step_back: from the gradients of the new states to those of the gates of the
// second layer and of those not fed, and to what they know of the old states. middle_back: the same for the first
// layer, from the gradient dm of m, that of m as a state not among it.
struct Lem {
  static constexpr int kStates = 2;
  static SENNIT_INLINE vf middle(const Forth& a) {
    return fma(a.limit() * sigmoid(a.p(1)), tanh(a.p(2)) - a.old(1), a.old(1));
  }
  static SENNIT_INLINE void step(const Forth& a) {
    const vf h = a.old(0);
    a.set_state(1, a.fed(kMiddle));
    a.set_h(fma(a.limit() * sigmoid(a.p(0)), tanh(a.p(3)) - h, h));
  }
  static SENNIT_INLINE void step_back(const Back& a) {
    const vf s = sigmoid(a.p(0)), t = tanh(a.p(3)), dh = a.dh(), open = a.limit() * s;
    a.give(3, through_tanh(t, dh * open));
    a.give(0, through_sigmoid(s, dh * (t - a.old(0)) * a.limit()));
    a.set_d(0, fnma(open, dh, dh));
  }
  static SENNIT_INLINE void middle_back(const Back& a, vf dm) {
    const vf s = sigmoid(a.p(1)), t = tanh(a.p(2)), open = a.limit() * s, all = dm + a.d(1);
    a.give(1, through_sigmoid(s, all * (t - a.old(1)) * a.limit()));
    a.give(2, through_tanh(t, all * open));
    a.set_d(1, fnma(open, all, all));
  }
};

struct Cfc {
  static constexpr int kStates = 1;
  static SENNIT_INLINE vf middle(const Forth& a) { return tanh(a.p(0)); }
  static SENNIT_INLINE void step(const Forth& a) {
    const vf s = sigmoid(-a.limit() * a.p(1)), end = tanh(a.p(3));
    a.set_h(fma(s, tanh(a.p(2)) - end, end));
  }
  static SENNIT_INLINE void step_back(const Back& a) {
    const vf s = sigmoid(-a.limit() * a.p(1)), start = tanh(a.p(2)), end = tanh(a.p(3)), dh = a.dh();
    a.give(1, through_sigmoid(s, dh * (start - end)) * -a.limit());
    a.give(2, through_tanh(start, dh * s));
    a.give(3, through_tanh(end, fnma(dh, s, dh)));
    a.set_d(0, zero());
  }
  static SENNIT_INLINE void middle_back(const Back& a, vf dm) { a.give(0, through_tanh(a.p(kMiddle), dm)); }
};

struct Elm {
  static constexpr int kStates = 1;
  static SENNIT_INLINE vf middle(const Forth& a) { return max(a.p(0), zero()); }
  static SENNIT_INLINE void step(const Forth& a) {
    a.set_h(fma(a.keep(3, a.in(3)), tanh(a.p(1)), a.keep(2, a.in(2)) * a.old(0)));
  }
  static SENNIT_INLINE void step_back(const Back& a) {
    const vf t = tanh(a.p(1)), dh = a.dh(), fade = a.p(2);
    a.give(1, through_tanh(t, dh * a.p(3)));
    a.give(2, dh * a.old(0));
    a.give(3, dh * t);
    a.set_d(0, dh * fade);
  }
  static SENNIT_INLINE void middle_back(const Back& a, vf dm) {
    a.give(0, select(less(zero(), a.p(kMiddle)), dm, zero()));
  }
};

template <class Cell>
void staged_advance(int64_t layer, const CellToken& t) {
  if (layer == 0)
    for_channels<Forth>(t, [](const Forth& a) { a.keep(kMiddle, Cell::middle(a)); });
  else
    for_channels<Forth>(t, [](const Forth& a) { Cell::step(a); });
}
template <class Cell>
void staged_back(int64_t layer, const CellTokenBack& t) {
  if (layer == 0)
    for_channels<Back>(t, [](const Back& a) { Cell::middle_back(a, a.d(Cell::kStates)); });
  else
    for_channels<Back>(t, [](const Back& a) { Cell::step_back(a); });
}
template <class Cell>
constexpr CellFunctions kStaged = {.advance = staged_advance<Cell>, .back = staged_back<Cell>};

}  // namespace

const StagedRnn staged_rnn_table = {.cells = {kStaged<Lem>, kStaged<Cfc>, kStaged<Elm>}};

}  // namespace sennit::kernels::SENNIT_LEVEL
