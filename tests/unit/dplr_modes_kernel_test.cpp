#include <gtest/gtest.h>

#include <complex>

#include "kernels/dplr_modes.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::dplr_modes_kernel_test {

using Doubles = std::vector<double>;
using Complex = std::complex<double>;

struct Inputs {
  Doubles u, a, b, e, p, c, h;
};

// y, then the last state: the new sum s' from the equation that it is in itself.
Doubles naive(int64_t length, int64_t modes, const Inputs& in) {
  const auto at = [&](const Doubles& x, int64_t n) { return Complex{x[n], x[modes + n]}; };
  std::vector<Complex> h;
  for (int64_t n = 0; n < modes; ++n) h.push_back(at(in.h, n));
  Doubles out;
  double coupled = 1;
  for (int64_t n = 0; n < modes; ++n) coupled += 2 * (at(in.p, n) * at(in.e, n)).real();
  for (int64_t t = 0; t < length; ++t) {
    double s = 0, next = 0, y = 0;
    for (int64_t n = 0; n < modes; ++n) s += 2 * (at(in.p, n) * h[n]).real();
    for (int64_t n = 0; n < modes; ++n) {
      h[n] = at(in.a, n) * h[n] + at(in.b, n) * in.u[t] - at(in.e, n) * s;
      next += 2 * (at(in.p, n) * h[n]).real() / coupled;
    }
    for (int64_t n = 0; n < modes; ++n) {
      h[n] -= at(in.e, n) * next;
      y += (at(in.c, n) * h[n]).real();
    }
    out.push_back(y);
  }
  for (const Complex& x : h) out.push_back(x.real());
  for (const Complex& x : h) out.push_back(x.imag());
  return out;
}

TEST(DplrModesKernel, IsTheSystemAndItsGradientsAreDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const int64_t length : {0, 1, 2, 9})
      for (const int64_t modes : {1, 5, 8, 19}) {
        const int64_t size = 2 * modes;
        const Fenced u = Fenced::normal(rng, length), a = Fenced::normal(rng, size, 0.4), b = Fenced::normal(rng, size),
                     e = Fenced::normal(rng, size, 0.1), p = Fenced::normal(rng, size, 0.3),
                     c = Fenced::normal(rng, size), h = Fenced::normal(rng, size);
        const Inputs in{u.doubles(), a.doubles(), b.doubles(), e.doubles(), p.doubles(), c.doubles(), h.doubles()};
        const kernels::DplrModesTask task{.u = u.data(),
                                          .a = a.data(),
                                          .b = b.data(),
                                          .e = e.data(),
                                          .p = p.data(),
                                          .c = c.data(),
                                          .u_stride = 1,
                                          .length = length,
                                          .modes = modes};
        Fenced y(length), end(size);
        kernels::dplr_modes().forward(task, h.data(), end.data(), y.data(), 1);
        ASSERT_TRUE(y.intact() && end.intact());
        const Doubles want = naive(length, modes, in);
        for (int64_t i = 0; i < length; ++i) ASSERT_NEAR(y[i], want[i], 1e-4 * (1 + std::abs(want[i])));
        for (int64_t i = 0; i < size; ++i)
          ASSERT_NEAR(end[i], want[length + i], 1e-4 * (1 + std::abs(want[length + i])));

        const Fenced dy = Fenced::normal(rng, length), dend = Fenced::normal(rng, size);
        Fenced du(length, 1), da(size, 1), db(size, 1), de(size, 1), dp(size, 1), dc(size, 1), dh(size, 1);
        Fenced scratch(kernels::dplr_modes().backward_scratch_floats(task));
        kernels::dplr_modes().backward(task, h.data(), dy.data(), 1, dend.data(),
                                       {du.data(), da.data(), db.data(), de.data(), dp.data(), dc.data()}, dh.data(),
                                       scratch.data());
        const auto loss = [&](Doubles Inputs::*which) {
          return [&, which](const Doubles& x) {
            Inputs at = in;
            at.*which = x;
            const Doubles out = naive(length, modes, at);
            double sum = 0;
            for (int64_t i = 0; i < length; ++i) sum += out[i] * dy[i];
            for (int64_t i = 0; i < size; ++i) sum += out[length + i] * dend[i];
            return sum;
          };
        };
        expect_gradient("du", loss(&Inputs::u), in.u, du, 2e-4, rng, 1);
        expect_gradient("da", loss(&Inputs::a), in.a, da, 2e-4, rng, 1);
        expect_gradient("db", loss(&Inputs::b), in.b, db, 2e-4, rng, 1);
        expect_gradient("de", loss(&Inputs::e), in.e, de, 2e-4, rng, 1);
        expect_gradient("dp", loss(&Inputs::p), in.p, dp, 2e-4, rng, 1);
        expect_gradient("dc", loss(&Inputs::c), in.c, dc, 2e-4, rng, 1);
        expect_gradient("dh", loss(&Inputs::h), in.h, dh, 2e-4, rng, 1);
      }
  });
}

}  // namespace sennit::dplr_modes_kernel_test
