#include "kernels/rnn.h"

#include "kernels/cell_lanes.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// advance: the new states. back: from the gradients of the new states to those of the old ones, less what is fed back,
// and to those of the gates.
struct Elman {
  static SENNIT_INLINE void advance(const Forth& a) { a.set_h(tanh(a.p(0))); }
  static SENNIT_INLINE void back(const Back& a) {
    const vf dh = a.dh();
    a.give(0, through_tanh(tanh(a.p(0)), dh));
    a.set_d(0, zero());
  }
};

struct Lstm {
  static SENNIT_INLINE void advance(const Forth& a) {
    const vf i = sigmoid(a.p(0)), f = sigmoid(a.p(1)), z = tanh(a.p(2)), o = sigmoid(a.p(3));
    const vf c = fma(f, a.old(1), i * z);
    a.set_state(1, c);
    a.set_h(o * tanh(c));
  }
  static SENNIT_INLINE void back(const Back& a) {
    const vf i = sigmoid(a.p(0)), f = sigmoid(a.p(1)), z = tanh(a.p(2)), o = sigmoid(a.p(3));
    const vf top = tanh(fma(f, a.old(1), i * z)), dh = a.dh(), dc = a.d(1) + through_tanh(top, o * dh);
    a.give(0, through_sigmoid(i, dc * z));
    a.give(1, through_sigmoid(f, dc * a.old(1)));
    a.give(2, through_tanh(z, dc * i));
    a.give(3, through_sigmoid(o, dh * top));
    a.set_d(0, zero()), a.set_d(1, dc * f);
  }
};

struct Gru {
  static constexpr int kIn = 3;  // where x_n is kept
  static SENNIT_INLINE void advance(const Forth& a) {
    const vf n = tanh(fma(sigmoid(a.p(0)), a.fed(2), a.keep(kIn, a.in(2))));
    a.set_h(fma(sigmoid(a.p(1)), a.old(0) - n, n));
  }
  static SENNIT_INLINE void back(const Back& a) {
    const vf r = sigmoid(a.p(0)), z = sigmoid(a.p(1)), n = tanh(fma(r, a.p(2), a.p(kIn))), dh = a.dh();
    const vf dn = through_tanh(n, dh * (set(1) - z)), dr = through_sigmoid(r, dn * a.p(2));
    a.give(0, dr);
    a.give(1, through_sigmoid(z, dh * (a.old(0) - n)));
    a.give(2, dn, dn * r);
    a.set_d(0, dh * z);
  }
};

struct Slstm {
  vf faded, open, keep, z, o, c, n;
  vmask keeps;  // whether the forget gate holds the maximum
  template <class Lanes>
  SENNIT_INLINE Slstm(const Lanes& a, vf in, vf forget, vf fresh, vf out) {
    faded = a.old(3) - softplus(-forget);
    keeps = less(in, faded);
    const vf m = select(keeps, faded, in);
    open = exp(in - m), keep = exp(faded - m), z = tanh(fresh), o = sigmoid(out);
    c = fma(keep, a.old(1), open * z), n = fma(keep, a.old(2), open);
  }
  static SENNIT_INLINE void advance(const Forth& a) {
    const vf in = a.p(0);
    const Slstm g(a, in, a.p(1), a.p(2), a.p(3));
    a.set_state(3, select(g.keeps, g.faded, in));
    a.set_state(1, g.c), a.set_state(2, g.n);
    a.set_h(g.o * g.c / g.n);
  }
  static SENNIT_INLINE void back(const Back& a) {
    const vf forget = a.p(1);
    const Slstm g(a, a.p(0), forget, a.p(2), a.p(3));
    const vf mean = g.c / g.n, dh = a.dh(), dc = a.d(1) + dh * g.o / g.n, dn = a.d(2) - dh * g.o * mean / g.n;
    const vf opened = g.open * fma(dc, g.z, dn), kept = g.keep * fma(dc, a.old(1), dn * a.old(2)), dm = a.d(3);
    // The gate that holds the maximum is a weight of 1: what it gains there, the other loses.
    const vf da = select(g.keeps, dm - opened, kept);
    a.give(0, select(g.keeps, opened, dm - kept));
    a.give(1, da * sigmoid(-forget));
    a.give(2, through_tanh(g.z, dc * g.open));
    a.give(3, through_sigmoid(g.o, dh * mean));
    a.set_d(0, zero()), a.set_d(1, dc * g.keep), a.set_d(2, dn * g.keep), a.set_d(3, da);
  }
};

template <class Cell>
void rnn_advance(int64_t, const CellToken& t) {
  for_channels<Forth>(t, [](const Forth& a) { Cell::advance(a); });
}
template <class Cell>
void rnn_back(int64_t, const CellTokenBack& t) {
  for_channels<Back>(t, [](const Back& a) { Cell::back(a); });
}
template <class Cell>
constexpr CellFunctions kRnn = {.advance = rnn_advance<Cell>, .back = rnn_back<Cell>};

}  // namespace

const Rnn rnn_table = {.cells = {kRnn<Elman>, kRnn<Lstm>, kRnn<Gru>, kRnn<Slstm>}};

}  // namespace sennit::kernels::SENNIT_LEVEL
