#include <gtest/gtest.h>

#include <cmath>

#include "kernels/selective_scan.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::selective_scan_kernel_test {

using Doubles = std::vector<double>;

struct Shape {
  int64_t length, channels, states;
};
struct Inputs {
  Doubles x, dt, a, b, c, d, h0;
};
struct Outputs {
  Doubles y, h;
};

Outputs naive(const Shape& p, const Inputs& in) {
  Outputs out{Doubles(p.length * p.channels), in.h0};
  for (int64_t t = 0; t < p.length; ++t)
    for (int64_t c = 0; c < p.channels; ++c) {
      const double dt = in.dt[t * p.channels + c], x = in.x[t * p.channels + c];
      double y = in.d[c] * x;
      for (int64_t n = 0; n < p.states; ++n) {
        double& h = out.h[c * p.states + n];
        h = std::exp(dt * in.a[c * p.states + n]) * h + dt * in.b[t * p.states + n] * x;
        y += in.c[t * p.states + n] * h;
      }
      out.y[t * p.channels + c] = y;
    }
  return out;
}

enum class Steps { mild, violent };

struct Sample {
  Shape shape;
  Fenced x, dt, a, b, c, d, h0;
  Sample(Rng& rng, const Shape& p, Steps steps)
      : shape(p),
        x(Fenced::normal(rng, p.length * p.channels)),
        dt(Fenced::uniform(rng, p.length * p.channels, 0, steps == Steps::mild ? 0.2 : 4)),
        a(Fenced::uniform(rng, p.channels * p.states, steps == Steps::mild ? -4 : -60, 0)),
        b(Fenced::normal(rng, p.length * p.states)),
        c(Fenced::normal(rng, p.length * p.states)),
        d(Fenced::normal(rng, p.channels)),
        h0(Fenced::normal(rng, p.channels * p.states)) {}
  kernels::SelectiveScanTask task(int64_t first, int64_t length) const {
    const int64_t C = shape.channels, N = shape.states;
    return {.x = x.data() + first * C,
            .dt = dt.data() + first * C,
            .a = a.data(),
            .b = b.data() + first * N,
            .c = c.data() + first * N,
            .d = d.data(),
            .x_stride = C,
            .dt_stride = C,
            .b_stride = N,
            .c_stride = N,
            .length = length,
            .states = N,
            .begin = 0,
            .end = C};
  }
  kernels::SelectiveScanTask task() const { return task(0, shape.length); }
  Inputs doubles() const {
    return {x.doubles(), dt.doubles(), a.doubles(), b.doubles(), c.doubles(), d.doubles(), h0.doubles()};
  }
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (int64_t length : {0, 1, 2, 15, 16, 17, 35})
    for (int64_t states : {1, 3, 4, 8, 16, 17, 22}) all.push_back({length, length % 2 ? 37 : 16, states});
  for (int64_t channels : {1, 7, 8, 9, 15, 17, 127, 129, 150}) all.push_back({20, channels, 16});
  return all;
}

// With no sign left the naive form gives the sum of the sizes of its terms, to which rounding is relative.
Inputs absolute(Inputs in) {
  for (Doubles* x : {&in.x, &in.b, &in.c, &in.d, &in.h0})
    for (double& v : *x) v = std::abs(v);
  return in;
}

TEST(SelectiveScanKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& p : shapes())
      for (Steps steps : {Steps::mild, Steps::violent}) {
        const Sample s(rng, p, steps);
        const Outputs want = naive(p, s.doubles()), size = naive(p, absolute(s.doubles()));
        Fenced y(p.length * p.channels, NAN), h = s.h0,
                                              scratch(kernels::selective_scan().scratch_floats(s.task()), NAN);
        kernels::selective_scan().forward(s.task(), h.data(), h.data(), y.data(), p.channels, scratch.data());
        for (int64_t i = 0; i < y.size(); ++i)
          ASSERT_NEAR(y[i], want.y[i], 2e-6 * size.y[i]) << p.length << " " << p.channels << " " << p.states;
        for (int64_t i = 0; i < h.size(); ++i) ASSERT_NEAR(h[i], want.h[i], 2e-6 * size.h[i]);
        ASSERT_TRUE(y.intact() && h.intact() && scratch.intact());
      }
  });
}

TEST(SelectiveScanKernel, SplitsOfTokensAndChannelsGiveTheWholeToTheBit) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    const Shape p{70, 50, 16};
    const Sample s(rng, p, Steps::mild);
    Fenced scratch(kernels::selective_scan().scratch_floats(s.task()), NAN);
    Fenced whole(p.length * p.channels), y(whole.size(), NAN), end(s.h0.size()), h = s.h0;
    kernels::selective_scan().forward(s.task(), s.h0.data(), end.data(), whole.data(), p.channels, scratch.data());
    for (int64_t first = 0; first < p.length;) {
      const int64_t length = std::min(p.length - first, first % 3 ? 1 : rng.below(30));
      for (auto [begin, finish] : {std::pair<int64_t, int64_t>{0, 19}, {19, 50}}) {
        kernels::SelectiveScanTask t = s.task(first, length);
        t.begin = begin, t.end = finish;
        kernels::selective_scan().forward(t, h.data(), h.data(), y.data() + first * p.channels, p.channels,
                                          scratch.data());
      }
      first += length;
    }
    for (int64_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], whole[i]);
    for (int64_t i = 0; i < h.size(); ++i) ASSERT_EQ(h[i], end[i]);
  });
}

TEST(SelectiveScanKernel, AbsentStatesAndSkipsAreZeros) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    const Shape p{9, 21, 5};
    const Sample s(rng, p, Steps::mild);
    Fenced scratch(kernels::selective_scan().scratch_floats(s.task()), NAN), a(p.length * p.channels), b(a.size());
    const Fenced zeros(s.h0.size()), no_skip(p.channels);
    kernels::SelectiveScanTask t = s.task();
    t.d = no_skip.data();
    kernels::selective_scan().forward(t, zeros.data(), nullptr, a.data(), p.channels, scratch.data());
    t.d = nullptr;
    kernels::selective_scan().forward(t, nullptr, nullptr, b.data(), p.channels, scratch.data());
    for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]);
  });
}

TEST(SelectiveScanKernel, GradientsAddWhatCentralDifferencesGive) {
  for_each_level([](IsaLevel) {
    Rng rng(4);
    for (const Shape& p : shapes()) {
      const Sample s(rng, p, Steps::mild);
      SCOPED_TRACE(std::to_string(p.length) + " " + std::to_string(p.channels) + " " + std::to_string(p.states));
      const Fenced dy = Fenced::normal(rng, p.length * p.channels), dh = Fenced::normal(rng, s.h0.size());
      const bool holds = rng.below(2) == 1;  // else dx and ddt are written
      const float held = holds ? 1 : NAN;
      Fenced dx(s.x.size(), held), ddt(s.dt.size(), held), da(s.a.size(), 1), db(s.b.size(), 1), dc(s.c.size(), 1);
      Fenced dd(s.d.size(), 1), dh0(s.h0.size(), 1);
      Fenced scratch(kernels::selective_scan().backward_scratch_floats(s.task()), NAN);
      kernels::SelectiveScanTask t = s.task();
      for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, p.channels / 3}, {p.channels / 3, p.channels}}) {
        t.begin = begin, t.end = end;
        kernels::selective_scan().backward(t, s.h0.data(), dy.data(), p.channels, dh.data(),
                                           {.dx = {dx.data(), holds},
                                            .ddt = {ddt.data(), holds},
                                            .da = da.data(),
                                            .db = db.data(),
                                            .dc = dc.data(),
                                            .dd = dd.data(),
                                            .dh0 = dh0.data()},
                                           scratch.data());
      }
      ASSERT_TRUE(scratch.intact());
      const Inputs in = s.doubles();
      auto along = [&](Doubles Inputs::*which) {
        return [&, which](const Doubles& v) {
          Inputs at = in;
          at.*which = v;
          const Outputs o = naive(p, at);
          double sum = 0;
          for (size_t i = 0; i < o.y.size(); ++i) sum += o.y[i] * dy[static_cast<int64_t>(i)];
          for (size_t i = 0; i < o.h.size(); ++i) sum += o.h[i] * dh[static_cast<int64_t>(i)];
          return sum;
        };
      };
      expect_gradient("dx", along(&Inputs::x), in.x, dx, 1e-5, rng, holds ? 1 : 0);
      expect_gradient("ddt", along(&Inputs::dt), in.dt, ddt, 1e-5, rng, holds ? 1 : 0);
      expect_gradient("dA", along(&Inputs::a), in.a, da, 1e-5, rng, 1);
      expect_gradient("dB", along(&Inputs::b), in.b, db, 1e-5, rng, 1);
      expect_gradient("dC", along(&Inputs::c), in.c, dc, 1e-5, rng, 1);
      expect_gradient("dD", along(&Inputs::d), in.d, dd, 1e-5, rng, 1);
      expect_gradient("dh0", along(&Inputs::h0), in.h0, dh0, 1e-5, rng, 1);
    }
  });
}

}  // namespace sennit::selective_scan_kernel_test
