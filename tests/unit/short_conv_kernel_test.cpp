#include <gtest/gtest.h>

#include <cmath>

#include "kernels/short_conv.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::short_conv_kernel_test {

using Doubles = std::vector<double>;

struct Shape {
  int64_t length, channels, width;
};
struct Inputs {
  Doubles x, w, bias, state;
};
struct Outputs {
  Doubles y, state;
};

Outputs naive(const Shape& s, const Inputs& in) {
  Doubles all = in.state;
  all.insert(all.end(), in.x.begin(), in.x.end());
  Outputs out{Doubles(in.x.size()), Doubles(all.end() - (s.width - 1) * s.channels, all.end())};
  for (int64_t t = 0; t < s.length; ++t)
    for (int64_t c = 0; c < s.channels; ++c) {
      double sum = in.bias[c];
      for (int64_t j = 0; j < s.width; ++j) sum += in.w[c * s.width + j] * all[(t + j) * s.channels + c];
      out.y[t * s.channels + c] = sum;
    }
  return out;
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (int64_t width = 2; width <= 8; ++width)
    for (int64_t length : {0, 1, 2, 3, 6, 7, 8, 20})
      for (int64_t channels : {1, 5, 16, 63, 64, 65, 130}) all.push_back({length, channels, width});
  return all;
}

kernels::ShortConvTask task_of(const Shape& s, const Fenced& x, const Fenced& w, const Fenced& bias) {
  return {.x = x.data(),
          .x_stride = s.channels,
          .w = w.data(),
          .bias = bias.data(),
          .length = s.length,
          .channels = s.channels,
          .width = s.width,
          .state_stride = s.channels};
}

TEST(ShortConvKernel, AgreesWithDoubleAndCarriesItsState) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& s : shapes()) {
      const Fenced x = Fenced::normal(rng, s.length * s.channels), w = Fenced::normal(rng, s.channels * s.width);
      const Fenced bias = Fenced::normal(rng, s.channels);
      Fenced state = Fenced::normal(rng, (s.width - 1) * s.channels), y(s.length * s.channels), pieces(y.size());
      Fenced carried = state;
      const Outputs want = naive(s, {x.doubles(), w.doubles(), bias.doubles(), state.doubles()});
      kernels::ShortConvTask t = task_of(s, x, w, bias);
      kernels::short_conv().forward(t, state.data(), state.data(), y.data(), s.channels);
      for (int64_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], want.y[i], 5e-6);
      for (int64_t i = 0; i < state.size(); ++i) ASSERT_EQ(state[i], want.state[i]);
      ASSERT_TRUE(y.intact() && state.intact());
      for (int64_t begin = 0; begin < s.length; begin += t.length) {
        t.length = std::min<int64_t>(s.length - begin, 1 + rng.below(5));
        t.x = x.data() + begin * s.channels;
        kernels::short_conv().forward(t, carried.data(), carried.data(), pieces.data() + begin * s.channels,
                                      s.channels);
      }
      for (int64_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], pieces[i]);
      for (int64_t i = 0; i < state.size(); ++i) ASSERT_EQ(state[i], carried[i]);
    }
  });
}

TEST(ShortConvKernel, StartsFromZerosAndWithoutBias) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    const Shape s{5, 70, 4};
    const Fenced x = Fenced::normal(rng, s.length * s.channels), w = Fenced::normal(rng, s.channels * s.width);
    const Fenced zeros(s.channels), none((s.width - 1) * s.channels);
    Fenced a(x.size()), b(x.size());
    kernels::ShortConvTask t = task_of(s, x, w, zeros);
    kernels::short_conv().forward(t, none.data(), nullptr, a.data(), s.channels);
    t.bias = nullptr;
    kernels::short_conv().forward(t, nullptr, nullptr, b.data(), s.channels);
    for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]);
  });
}

TEST(ShortConvKernel, GradientsAddWhatCentralDifferencesGive) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const Shape& s : shapes()) {
      if (s.channels == 64 || s.channels == 130 || s.width % 2) continue;
      const Fenced x = Fenced::normal(rng, s.length * s.channels), w = Fenced::normal(rng, s.channels * s.width);
      const Fenced bias = Fenced::normal(rng, s.channels), dy = Fenced::normal(rng, x.size());
      const Fenced state = Fenced::normal(rng, (s.width - 1) * s.channels), dend = Fenced::normal(rng, state.size());
      Fenced dx(x.size(), 1), dw(w.size(), 1), dbias(bias.size(), 1), dstate(state.size(), 1);
      kernels::short_conv().backward(task_of(s, x, w, bias), state.data(), dy.data(), s.channels, dend.data(),
                                     dx.data(), dw.data(), dbias.data(), dstate.data());
      const Inputs in{x.doubles(), w.doubles(), bias.doubles(), state.doubles()};
      auto loss = [&](const Inputs& at) {
        const Outputs o = naive(s, at);
        double sum = 0;
        for (size_t i = 0; i < o.y.size(); ++i) sum += o.y[i] * dy[static_cast<int64_t>(i)];
        for (size_t i = 0; i < o.state.size(); ++i) sum += o.state[i] * dend[static_cast<int64_t>(i)];
        return sum;
      };
      auto along = [&](Doubles Inputs::*which) {
        return [&, which](const Doubles& p) {
          Inputs at = in;
          at.*which = p;
          return loss(at);
        };
      };
      expect_gradient("dx", along(&Inputs::x), in.x, dx, 1e-5, rng, 1);
      expect_gradient("dw", along(&Inputs::w), in.w, dw, 1e-5, rng, 1);
      expect_gradient("dbias", along(&Inputs::bias), in.bias, dbias, 1e-5, rng, 1);
      expect_gradient("dstate", along(&Inputs::state), in.state, dstate, 1e-5, rng, 1);
    }
  });
}

}  // namespace sennit::short_conv_kernel_test
