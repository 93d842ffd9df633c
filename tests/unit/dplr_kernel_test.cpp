#include <gtest/gtest.h>

#include <cmath>

#include "kernels/dplr.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::dplr_kernel_test {

using Doubles = std::vector<double>;

struct Shape {
  int64_t length, key_dim, value_dim;
};
constexpr double kScale = 0.3;

struct Inputs {
  Doubles q, k, v, a, b, g, s0;
};
struct Outputs {
  Doubles y, s;
};

Outputs naive(const Shape& p, const Inputs& in) {
  Outputs out{Doubles(p.length * p.value_dim), in.s0};
  for (int64_t t = 0; t < p.length; ++t)
    for (int64_t j = 0; j < p.value_dim; ++j) {
      const auto row = [&](const Doubles& x, int64_t i) { return x[t * p.key_dim + i]; };
      double held = 0;
      for (int64_t i = 0; i < p.key_dim; ++i) held += row(in.a, i) * out.s[i * p.value_dim + j];
      for (int64_t i = 0; i < p.key_dim; ++i) {
        double& s = out.s[i * p.value_dim + j];
        s = std::exp(row(in.g, i)) * s + row(in.b, i) * held + row(in.k, i) * in.v[t * p.value_dim + j];
        out.y[t * p.value_dim + j] += kScale * s * row(in.q, i);
      }
    }
  return out;
}

// As RWKV-7 uses it: a of length 1, b its negative times rates in [0, 1]; decays from none to violent.
struct Sample {
  Shape shape;
  Fenced q, k, v, a, b, g, s0;
  Sample(Rng& rng, const Shape& p)
      : shape(p),
        q(Fenced::normal(rng, p.length * p.key_dim)),
        k(Fenced::normal(rng, p.length * p.key_dim)),
        v(Fenced::normal(rng, p.length * p.value_dim)),
        a(Fenced::normal(rng, p.length * p.key_dim)),
        b(p.length * p.key_dim),
        g(p.length * p.key_dim),
        s0(Fenced::normal(rng, p.key_dim * p.value_dim)) {
    const float gates[] = {0, -1e-4f, -0.5f, -20, -INFINITY};
    for (float& x : g) x = gates[rng.below(5)];
    for (int64_t t = 0; t < p.length; ++t) {
      double squares = 1e-12;
      for (int64_t i = 0; i < p.key_dim; ++i) squares += std::pow(a[t * p.key_dim + i], 2);
      for (int64_t i = 0; i < p.key_dim; ++i) {
        float& x = a[t * p.key_dim + i];
        x /= static_cast<float>(std::sqrt(squares));
        b[t * p.key_dim + i] = static_cast<float>(-rng.uniform()) * x;
      }
    }
  }
  kernels::DplrTask task(int64_t begin, int64_t length) const {
    const int64_t K = shape.key_dim, V = shape.value_dim, at = begin * K;
    return {.q = q.data() + at,
            .k = k.data() + at,
            .v = v.data() + begin * V,
            .a = a.data() + at,
            .b = b.data() + at,
            .g = g.data() + at,
            .stride = K,
            .v_stride = V,
            .length = length,
            .key_dim = K,
            .value_dim = V,
            .scale = static_cast<float>(kScale)};
  }
  kernels::DplrTask task() const { return task(0, shape.length); }
  Inputs doubles() const {
    return {q.doubles(), k.doubles(), v.doubles(), a.doubles(), b.doubles(), g.doubles(), s0.doubles()};
  }
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (auto [key_dim, value_dim] :
       {std::pair<int64_t, int64_t>{1, 3}, {3, 1}, {3, 65}, {17, 8}, {16, 16}, {31, 33}, {64, 64}})
    for (int64_t length : {0, 1, 2, 15, 16, 17, 35}) all.push_back({length, key_dim, value_dim});
  return all;
}

double distance(const Fenced& got, const Doubles& want) {
  double most = 0;
  for (int64_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(got[i] - want[i]);
    if (!(d <= most)) most = std::isnan(d) ? INFINITY : d;
  }
  return most;
}

TEST(DplrKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& p : shapes()) {
      const Sample s(rng, p);
      const Outputs want = naive(p, s.doubles());
      Fenced scratch(kernels::dplr().scratch_floats(s.task()), NAN), y(p.length * p.value_dim, NAN), end = s.s0;
      kernels::dplr().forward(s.task(), end.data(), end.data(), y.data(), p.value_dim, scratch.data());
      const double size = 6 + std::sqrt(static_cast<double>(p.key_dim));  // of the numbers of a state
      ASSERT_LE(distance(end, want.s), 1e-6 * size) << p.length;
      ASSERT_LE(distance(y, want.y), 1e-6 * kScale * size * size) << p.length;
      ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
    }
  });
}

TEST(DplrKernel, AnySplitGivesTheSameBits) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    const Shape p{50, 24, 40};
    const Sample s(rng, p);
    Fenced scratch(kernels::dplr().scratch_floats(s.task()), NAN), whole(p.length * p.value_dim), y(whole.size()),
        end(s.s0.size()), state(s.s0.size());
    kernels::dplr().forward(s.task(), nullptr, end.data(), whole.data(), p.value_dim, scratch.data());
    for (int64_t begin = 0; begin < p.length;) {
      const int64_t length = std::min(p.length - begin, rng.below(20));
      kernels::dplr().forward(s.task(begin, length), state.data(), state.data(), y.data() + begin * p.value_dim,
                              p.value_dim, scratch.data());
      begin += length;
    }
    for (int64_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], whole[i]);
    for (int64_t i = 0; i < end.size(); ++i) ASSERT_EQ(end[i], state[i]);
  });
}

void check_gradients(Rng& rng, const Shape& p) {
  const Sample s(rng, p);
  SCOPED_TRACE(testing::Message() << "T " << p.length << " K " << p.key_dim << " V " << p.value_dim);
  const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), ds_end = Fenced::normal(rng, s.s0.size());
  Fenced d[] = {Fenced(s.q.size()), Fenced(s.k.size()), Fenced(s.v.size()), Fenced(s.a.size()),
                Fenced(s.b.size()), Fenced(s.g.size()), Fenced(s.s0.size())};
  Fenced scratch(kernels::dplr().backward_scratch_floats(s.task()), NAN);
  kernels::dplr().backward(s.task(), s.s0.data(), dy.data(), p.value_dim, ds_end.data(),
                           {d[0].data(), d[1].data(), d[2].data(), d[3].data(), d[4].data(), d[5].data()}, d[6].data(),
                           scratch.data());
  ASSERT_TRUE(scratch.intact());
  const Inputs in = s.doubles();
  const auto along = [&](Doubles Inputs::*which) {
    return [&, which](const Doubles& x) {
      Inputs at = in;
      at.*which = x;
      const Outputs o = naive(p, at);
      double sum = 0;
      for (size_t i = 0; i < o.y.size(); ++i) sum += o.y[i] * dy[static_cast<int64_t>(i)];
      for (size_t i = 0; i < o.s.size(); ++i) sum += o.s[i] * ds_end[static_cast<int64_t>(i)];
      return sum;
    };
  };
  const std::pair<const char*, Doubles Inputs::*> parts[] = {{"q", &Inputs::q},  {"k", &Inputs::k}, {"v", &Inputs::v},
                                                             {"a", &Inputs::a},  {"b", &Inputs::b}, {"g", &Inputs::g},
                                                             {"s0", &Inputs::s0}};
  // With one key channel a gradient can be a single sum over the value channels, whose terms may cancel.
  const double tolerance = p.key_dim == 1 ? 1e-4 : 1e-5;
  for (size_t i = 0; i < std::size(parts); ++i)
    expect_gradient(parts[i].first, along(parts[i].second), in.*parts[i].second, d[i], tolerance, rng);
}

TEST(DplrKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const Shape& p : shapes())
      if (p.key_dim * p.value_dim < 1100) check_gradients(rng, p);
  });
}

}  // namespace sennit::dplr_kernel_test
