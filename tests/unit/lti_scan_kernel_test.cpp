#include <gtest/gtest.h>

#include "kernels/lti_scan.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::lti_scan_kernel_test {

using Doubles = std::vector<double>;

struct Shape {
  int64_t length, channels, order;
};
struct Inputs {
  Doubles u, a, b, state;
};
// m, then the last state.
Doubles naive(const Shape& s, const Inputs& in) {
  Doubles m(s.length * s.order * s.channels), state = in.state;
  for (int64_t t = 0; t < s.length; ++t) {
    const Doubles before = state;
    for (int64_t i = 0; i < s.order; ++i)
      for (int64_t c = 0; c < s.channels; ++c) {
        double x = in.b[i] * in.u[t * s.channels + c];
        for (int64_t j = 0; j < s.order; ++j) x += in.a[i * s.order + j] * before[j * s.channels + c];
        m[(t * s.order + i) * s.channels + c] = state[i * s.channels + c] = x;
      }
  }
  m.insert(m.end(), state.begin(), state.end());
  return m;
}

TEST(LtiScanKernel, IsTheSystemAndItsGradientsAreDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape s : {Shape{0, 3, 4}, Shape{1, 1, 1}, Shape{7, 8, 5}, Shape{12, 19, 8}, Shape{5, 40, 3}}) {
      const Fenced u = Fenced::normal(rng, s.length * s.channels), a = Fenced::normal(rng, s.order * s.order, 0.4),
                   b = Fenced::normal(rng, s.order);
      Fenced state = Fenced::normal(rng, s.order * s.channels), m(s.length * s.order * s.channels);
      const Inputs in{u.doubles(), a.doubles(), b.doubles(), state.doubles()};
      const kernels::LtiScanTask task{.u = u.data(),
                                      .a = a.data(),
                                      .b = b.data(),
                                      .u_stride = s.channels,
                                      .length = s.length,
                                      .channels = s.channels,
                                      .order = s.order,
                                      .state_stride = s.channels};
      Fenced scratch(kernels::lti_scan().scratch_floats(task)), end(state.size());
      kernels::lti_scan().forward(task, state.data(), end.data(), m.data(), s.order * s.channels, scratch.data());
      ASSERT_TRUE(m.intact() && end.intact() && scratch.intact());
      const Doubles want = naive(s, in);
      for (int64_t i = 0; i < m.size(); ++i) ASSERT_NEAR(m[i], want[i], 2e-5 * (1 + std::abs(want[i])));
      for (int64_t i = 0; i < end.size(); ++i)
        ASSERT_NEAR(end[i], want[m.size() + i], 2e-5 * (1 + std::abs(want[m.size() + i])));

      const Fenced dm = Fenced::normal(rng, m.size()), dend = Fenced::normal(rng, end.size());
      Fenced du(u.size(), 1), ds(state.size(), 1);
      kernels::lti_scan().backward(task, dm.data(), s.order * s.channels, dend.data(), du.data(), ds.data(),
                                   scratch.data());
      const auto loss = [&](Doubles Inputs::*which) {
        return [&, which](const Doubles& x) {
          Inputs at = in;
          at.*which = x;
          const Doubles out = naive(s, at);
          double sum = 0;
          for (int64_t i = 0; i < dm.size(); ++i) sum += out[i] * dm[i];
          for (int64_t i = 0; i < dend.size(); ++i) sum += out[dm.size() + i] * dend[i];
          return sum;
        };
      };
      expect_gradient("du", loss(&Inputs::u), in.u, du, 2e-5, rng, 1);
      expect_gradient("ds", loss(&Inputs::state), in.state, ds, 2e-5, rng, 1);
    }
  });
}

}  // namespace sennit::lti_scan_kernel_test
