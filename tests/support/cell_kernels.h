#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "sequence/cells.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

// What every kernel that takes a recurrent cell through a step is held to. A Sample(rng, cell, length, dim) has the fenced
// numbers x, r and s (the first state), kind(), inputs() in double, and the definition naive(inputs): outputs, then the last
// state.
namespace sennit {

struct CellInputs {
  std::vector<double> x, r, s;
};

inline double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

// A sequence token by token through the kernel, `part` channels at a time; what is fed back comes from plain loops.
struct CellWalk {
  const CellKind kind;
  const int64_t length, dim, part;
  const Fenced& r;
  Fenced kept, states, y;  // [length, kept dim], [length + 1, states dim], [length, dim]

  template <class Sample>
  CellWalk(const Sample& s, int64_t channels)
      : kind(s.kind()),
        length(s.length),
        dim(s.dim),
        part(channels),
        r(s.r),
        kept(length * kind.kept * dim, NAN),
        states((length + 1) * kind.states * dim, NAN),
        y(length * dim, NAN) {
    std::copy(s.s.begin(), s.s.end(), states.begin());
    for (int64_t t = 0; t < length; ++t)
      for (int64_t layer = 0; layer < kind.layers; ++layer) {
        feed(t, layer);
        in_parts([&](int64_t begin, int64_t end) {
          kind.functions.advance(layer, {.x = s.x.data() + t * kind.gates * dim,
                                         .p = at(kept, t, kind.kept),
                                         .before = at(states, t, kind.states),
                                         .after = at(states, t + 1, kind.states),
                                         .y = at(y, t, 1),
                                         .dim = dim,
                                         .begin = begin,
                                         .end = end,
                                         .limit = kind.limit});
        });
      }
  }

  // With the gradients d of the last state in, those of the first one out. kept holds the gradients of what was fed then.
  void back(const Fenced& dy, Fenced& d, Fenced& dx, Fenced& dr) {
    for (int64_t t = length - 1; t >= 0; --t)
      for (int64_t layer = kind.layers - 1; layer >= 0; --layer) {
        in_parts([&](int64_t begin, int64_t end) {
          kind.functions.back(layer, {.p = at(kept, t, kind.kept),
                                      .before = at(states, t, kind.states),
                                      .dy = dy.data() + t * dim,
                                      .d = d.data(),
                                      .dx = at(dx, t, kind.gates),
                                      .dim = dim,
                                      .begin = begin,
                                      .end = end,
                                      .limit = kind.limit});
        });
        feed_back(t, layer, d, dr);
      }
  }
  bool intact() const { return kept.intact() && states.intact() && y.intact(); }

 private:
  float* at(Fenced& rows, int64_t t, int64_t width) const { return rows.data() + t * width * dim; }
  const float* fed_by(int64_t t, int64_t layer) {
    return layer ? at(kept, t, kind.kept) + kind.middle * dim : at(states, t, kind.states);
  }
  template <class Body>
  void in_parts(Body&& body) const {
    for (int64_t c = 0; c < dim; c += part) body(c, std::min(c + part, dim));
  }
  void feed(int64_t t, int64_t layer) {
    const float* from = fed_by(t, layer);
    const auto [first, gates] = kind.layer[layer];
    for (int64_t c = first * dim; c < (first + gates) * dim; ++c) {
      double sum = 0;
      for (int64_t j = 0; j < dim; ++j) sum += double{from[j]} * r[j * kind.gates * dim + c];
      at(kept, t, kind.kept)[c] = static_cast<float>(sum);
    }
  }
  void feed_back(int64_t t, int64_t layer, Fenced& d, Fenced& dr) {
    const float *du = at(kept, t, kind.kept), *from = fed_by(t, layer);
    const auto [first, gates] = kind.layer[layer];
    for (int64_t j = 0; j < dim; ++j) {
      double sum = 0;
      for (int64_t c = first * dim; c < (first + gates) * dim; ++c) {
        sum += double{du[c]} * r[j * kind.gates * dim + c];
        dr[j * kind.gates * dim + c] += from[j] * du[c];
      }
      float& to = d[(layer ? kind.states * dim : 0) + j];
      to = static_cast<float>(layer ? sum : to + sum);
    }
  }
};

// `allowed(want, of_state)` is how far a number may be off.
template <class Sample, class Cells, class Allowed>
void expect_cells_agree_with_double(const Cells& cells, Allowed&& allowed) {
  Rng rng(1);
  for (const auto cell : cells)
    for (const int64_t dim : {1, 3, 8, 16, 17, 40})
      for (const int64_t length : {0, 1, 2, 30}) {
        const Sample s(rng, cell, length, dim);
        const CellWalk walk(s, dim);
        const std::vector<double> want = s.naive(s.inputs());
        ASSERT_TRUE(walk.intact());
        ASSERT_EQ(std::ssize(want), walk.y.size() + s.s.size());
        const float* end = walk.states.end() - s.s.size();
        for (int64_t i = 0; i < std::ssize(want); ++i) {
          const double number = want[static_cast<size_t>(i)];
          ASSERT_NEAR(i < walk.y.size() ? walk.y[i] : end[i - walk.y.size()], number, allowed(number, i >= walk.y.size()))
              << static_cast<int>(cell) << " dim " << dim << " at " << i << " of " << length;
        }
      }
}

// Threads may share the channels of a step, cut anywhere.
template <class Sample, class Cells>
void expect_channels_stand_alone(const Cells& cells) {
  Rng rng(2);
  for (const auto cell : cells)
    for (const int64_t part : {1, 5, 16}) {
      const Sample s(rng, cell, 6, 39);
      const Fenced dy = Fenced::normal(rng, s.length * s.dim);
      Fenced whole(5 * s.dim, 0.5f), cut = whole, dx(s.x.size()), dx_cut = dx, dr(s.r.size()), dr_cut = dr;
      CellWalk at_once(s, s.dim), in_parts(s, part);
      at_once.back(dy, whole, dx, dr), in_parts.back(dy, cut, dx_cut, dr_cut);
      for (int64_t i = 0; i < dy.size(); ++i) ASSERT_EQ(at_once.y[i], in_parts.y[i]) << static_cast<int>(cell);
      for (int64_t i = 0; i < dx.size(); ++i) ASSERT_EQ(dx[i], dx_cut[i]) << static_cast<int>(cell);
      for (int64_t i = 0; i < whole.size(); ++i) ASSERT_EQ(whole[i], cut[i]) << static_cast<int>(cell);
    }
}

template <class Sample, class Cells>
void expect_cell_gradients(const Cells& cells) {
  Rng rng(3);
  for (const auto cell : cells)
    for (const int64_t dim : {1, 16, 19})
      for (const int64_t length : {1, 2, 25}) {
        const Sample s(rng, cell, length, dim);
        const Fenced dy = Fenced::normal(rng, length * dim), d_end = Fenced::normal(rng, s.s.size());
        CellWalk walk(s, dim);
        Fenced dx(s.x.size()), dr(s.r.size()), d(s.s.size() + (walk.kind.layers - 1) * dim);
        std::copy(d_end.begin(), d_end.end(), d.begin());
        walk.back(dy, d, dx, dr);
        ASSERT_TRUE(walk.intact() && d.intact() && dx.intact());
        Fenced ds(s.s.size());
        std::copy_n(d.begin(), ds.size(), ds.begin());
        SCOPED_TRACE(testing::Message() << static_cast<int>(cell) << " dim " << dim << " length " << length);
        const auto check = [&](const char* name, std::vector<double> CellInputs::*which, const Fenced& gradient) {
          const auto loss = [&](const std::vector<double>& values) {
            CellInputs in = s.inputs();
            in.*which = values;
            const std::vector<double> y = s.naive(in);
            double sum = 0;
            for (int64_t i = 0; i < dy.size(); ++i) sum += y[static_cast<size_t>(i)] * dy[i];
            for (int64_t i = 0; i < d_end.size(); ++i) sum += y[static_cast<size_t>(dy.size() + i)] * d_end[i];
            return sum;
          };
          expect_gradient(name, loss, s.inputs().*which, gradient, 1e-4, rng);
        };
        check("x", &CellInputs::x, dx), check("r", &CellInputs::r, dr), check("s", &CellInputs::s, ds);
      }
}

}  // namespace sennit
