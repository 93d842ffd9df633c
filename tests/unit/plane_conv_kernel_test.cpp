#include <gtest/gtest.h>

#include "kernels/plane_conv.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::plane_conv_kernel_test {

using Doubles = std::vector<double>;

struct Shape {
  int64_t length, channels, position, columns, rows_away, columns_away;
  bool causal, differences = false;

  int64_t kept() const { return causal ? rows_away * columns + std::min(columns_away, columns - 1) : 0; }
  int64_t taps() const { return (2 * rows_away + 1) * (2 * columns_away + 1); }
};
struct Inputs {
  Doubles x, w, state;
};

// By pairs of tokens: what lies how far from what.
Doubles naive(const Shape& s, const Inputs& in) {
  Doubles all = in.state, y(in.x.size());
  all.insert(all.end(), in.x.begin(), in.x.end());
  for (int64_t t = s.position; t < s.position + s.length; ++t)
    for (int64_t p = std::max<int64_t>(0, s.position - s.kept()); p < s.position + s.length; ++p) {
      const int64_t down = p / s.columns - t / s.columns, right = p % s.columns - t % s.columns;
      if (std::abs(down) > s.rows_away || std::abs(right) > s.columns_away || (s.causal && p > t)) continue;
      const int64_t tap = (down + s.rows_away) * (2 * s.columns_away + 1) + right + s.columns_away;
      for (int64_t c = 0; c < s.channels; ++c)
        y[(t - s.position) * s.channels + c] +=
            in.w[tap * s.channels + c] * (all[(p - s.position + s.kept()) * s.channels + c] -
                                          (s.differences ? in.x[(t - s.position) * s.channels + c] : 0));
    }
  return y;
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const bool causal : {false, true})
    for (const int64_t columns : {1, 2, 3, 5})
      for (const int64_t rows : {0, 1, 2})
        for (const int64_t away : {0, 1, 2})
          for (const int64_t channels : {1, 7, 33, 40}) {
            all.push_back({columns * 3, channels, 0, columns, rows, away, causal, away == 1});
            if (!causal) continue;
            for (const int64_t length : {0, 1, 8})
              all.push_back({length, channels, 11, columns, rows, away, true, rows == 1});
          }
  return all;
}

kernels::PlaneConvTask task_of(const Shape& s, const Fenced& x, const Fenced& w) {
  return {.x = x.data(),
          .w = w.data(),
          .stride = s.channels,
          .length = s.length,
          .channels = s.channels,
          .position = s.position,
          .columns = s.columns,
          .rows_away = s.rows_away,
          .columns_away = s.columns_away,
          .causal = s.causal,
          .differences = s.differences,
          .kept = s.kept()};
}

TEST(PlaneConvKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& s : shapes()) {
      const Fenced x = Fenced::normal(rng, s.length * s.channels), w = Fenced::normal(rng, s.taps() * s.channels),
                   state = Fenced::normal(rng, s.kept() * s.channels);
      Fenced y(x.size());
      kernels::plane_conv().forward(task_of(s, x, w), state.data(), y.data());
      const Doubles want = naive(s, {x.doubles(), w.doubles(), state.doubles()});
      for (int64_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], want[i], 1e-5);
      ASSERT_TRUE(y.intact());
    }
  });
}

TEST(PlaneConvKernel, WithoutAStateThereAreZerosBefore) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    const Shape s{8, 19, 11, 3, 1, 1, true, true};
    const Fenced x = Fenced::normal(rng, s.length * s.channels), w = Fenced::normal(rng, s.taps() * s.channels),
                 zeros(s.kept() * s.channels);
    Fenced a(x.size()), b(x.size());
    kernels::plane_conv().forward(task_of(s, x, w), zeros.data(), a.data());
    kernels::plane_conv().forward(task_of(s, x, w), nullptr, b.data());
    for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]);
  });
}

TEST(PlaneConvKernel, GradientsAddWhatCentralDifferencesGive) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const Shape& s : shapes()) {
      if (s.channels != 33 || s.length == 0) continue;
      const Fenced x = Fenced::normal(rng, s.length * s.channels), w = Fenced::normal(rng, s.taps() * s.channels),
                   state = Fenced::normal(rng, s.kept() * s.channels), dy = Fenced::normal(rng, x.size());
      Fenced dx(x.size(), 1), dw(w.size(), 1), dstate(state.size(), 1);
      kernels::plane_conv().backward(task_of(s, x, w), state.data(), dy.data(), dx.data(), dw.data(), dstate.data());
      const Inputs in{x.doubles(), w.doubles(), state.doubles()};
      const auto along = losses(
          in, [&](const Inputs& at) { return naive(s, at); }, dy);
      expect_gradient("dx", along(&Inputs::x), in.x, dx, 1e-5, rng, 1);
      expect_gradient("dw", along(&Inputs::w), in.w, dw, 1e-5, rng, 1);
      if (s.kept() > 0) expect_gradient("dstate", along(&Inputs::state), in.state, dstate, 1e-5, rng, 1);
      kernels::plane_conv().backward(task_of(s, x, w), nullptr, dy.data(), dx.data(), nullptr, nullptr);
    }
  });
}

}  // namespace sennit::plane_conv_kernel_test
