#include <gtest/gtest.h>

#include <cmath>

#include "kernels/gla.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::gla_kernel_test {

using Doubles = std::vector<double>;
using kernels::Decay;

struct Shape {
  int64_t length, key_dim, value_dim;
  Decay decay;
  bool reads_before = false;
  int64_t gates() const { return decay == Decay::vector ? key_dim : decay == Decay::scalar ? 1 : 0; }
};

struct Inputs {
  Doubles q, k, v, g, s0;
};
struct Outputs {
  Doubles y, s;
};

constexpr double kScale = 0.3;

Outputs naive(const Shape& p, const Inputs& in) {
  Outputs out{Doubles(p.length * p.value_dim), in.s0};
  for (int64_t t = 0; t < p.length; ++t)
    for (int64_t i = 0; i < p.key_dim; ++i) {
      const double gate = p.gates() ? in.g[t * p.gates() + (p.decay == Decay::vector ? i : 0)] : 0;
      for (int64_t j = 0; j < p.value_dim; ++j) {
        double& s = out.s[i * p.value_dim + j];
        const double before = s;
        s = std::exp(gate) * s + in.k[t * p.key_dim + i] * in.v[t * p.value_dim + j];
        out.y[t * p.value_dim + j] += kScale * (p.reads_before ? before : s) * in.q[t * p.key_dim + i];
      }
    }
  return out;
}

enum class Gates { open, mild, mixed, violent };

float gate(Rng& rng, Gates kind) {
  const float choices[] = {0, -1e-4f, -0.5f, -20, -80, -INFINITY};
  switch (kind) {
    case Gates::open:
      return 0;
    case Gates::mild:
      return static_cast<float>(-0.2 * rng.uniform());
    case Gates::mixed:
      return choices[rng.below(6)];
    case Gates::violent:
      return rng.below(2) ? -20.0f : -80.0f;
  }
  return 0;
}

struct Sample {
  Shape shape;
  Fenced q, k, v, g, s0;
  Sample(Rng& rng, const Shape& p, Gates kind)
      : shape(p),
        q(Fenced::normal(rng, p.length * p.key_dim)),
        k(Fenced::normal(rng, p.length * p.key_dim)),
        v(Fenced::normal(rng, p.length * p.value_dim)),
        g(p.length * p.gates()),
        s0(Fenced::normal(rng, p.key_dim * p.value_dim)) {
    for (float& x : g) x = gate(rng, kind);
  }
  kernels::GlaTask task(int64_t begin, int64_t length) const {
    const int64_t K = shape.key_dim, V = shape.value_dim, G = shape.gates();
    return {.q = q.data() + begin * K,
            .k = k.data() + begin * K,
            .v = v.data() + begin * V,
            .g = G ? g.data() + begin * G : nullptr,
            .q_stride = K,
            .k_stride = K,
            .v_stride = V,
            .g_stride = G,
            .length = length,
            .key_dim = K,
            .value_dim = V,
            .scale = static_cast<float>(kScale),
            .decay = shape.decay,
            .reads_before = shape.reads_before};
  }
  kernels::GlaTask task() const { return task(0, shape.length); }
  Inputs doubles() const { return {q.doubles(), k.doubles(), v.doubles(), g.doubles(), s0.doubles()}; }
};

std::vector<Shape> shapes(std::initializer_list<int64_t> lengths) {
  std::vector<std::pair<int64_t, int64_t>> dims{{1, 128}, {128, 1}, {3, 65}, {65, 3}, {17, 64}, {64, 17}, {32, 128}};
  for (int64_t d : {1, 3, 8, 16, 17, 32, 64, 65, 128}) dims.push_back({d, d});
  std::vector<Shape> all;
  for (auto [key_dim, value_dim] : dims)
    for (int64_t length : lengths)
      for (Decay decay : {Decay::none, Decay::scalar, Decay::vector})
        for (bool before : {false, true}) all.push_back({length, key_dim, value_dim, decay, before});
  return all;
}

std::string describe(const Sample& s, Gates kind) {
  return "T " + std::to_string(s.shape.length) + " K " + std::to_string(s.shape.key_dim) + " V " +
         std::to_string(s.shape.value_dim) + " decay " + std::to_string(static_cast<int>(s.shape.decay)) +
         (s.shape.reads_before ? " before" : "") + " gates " + std::to_string(static_cast<int>(kind));
}

// The largest difference; infinite where there is a NaN.
double distance(const Fenced& got, const Doubles& want) {
  double most = 0;
  for (int64_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(got[i] - want[i]);
    if (!(d <= most)) most = std::isnan(d) ? INFINITY : d;
  }
  return most;
}
double magnitude(const Doubles& x) {
  double most = 0;
  for (double v : x) most = std::max(most, std::abs(v));
  return most;
}

// With no sign left the naive form gives the sum of the sizes of its terms, to which rounding is relative.
Inputs absolute(Inputs in) {
  for (Doubles* x : {&in.q, &in.k, &in.v, &in.s0})
    for (double& v : *x) v = std::abs(v);
  return in;
}

const Gates kGates[] = {Gates::open, Gates::mild, Gates::mixed, Gates::violent};

TEST(GlaKernel, BothFormsAgreeWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& p : shapes({0, 1, 2, 15, 16, 17, 35}))
      for (Gates kind : kGates) {
        const Sample s(rng, p, kind);
        SCOPED_TRACE(describe(s, kind));
        const Outputs want = naive(p, s.doubles());
        Fenced scratch(kernels::gla().scratch_floats(s.task()), NAN), y(p.length * p.value_dim, NAN), end = s.s0;
        kernels::gla().recurrent(s.task(), end.data(), end.data(), y.data(), p.value_dim, scratch.data());
        const Outputs terms = naive(p, absolute(s.doubles()));
        const double y_size = magnitude(terms.y), s_size = magnitude(terms.s);
        const double y_error = distance(y, want.y), s_error = distance(end, want.s);
        ASSERT_LE(y_error, 5e-7 * y_size);
        ASSERT_LE(s_error, 5e-7 * s_size);
        ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
        end = Fenced(s.s0.size(), NAN), y = Fenced(y.size(), NAN);
        kernels::gla().chunked(s.task(), s.s0.data(), end.data(), y.data(), p.value_dim, scratch.data());
        ASSERT_LE(distance(y, want.y), 3 * y_error + 1e-7 * y_size);
        ASSERT_LE(distance(end, want.s), 3 * s_error + 1e-7 * s_size);
        ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
      }
  });
}

TEST(GlaKernel, SplitsWithCarriedStateGiveTheWhole) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (Decay decay : {Decay::none, Decay::scalar, Decay::vector})
      for (Gates kind : kGates)
        for (int round = 0; round < 4; ++round) {
          const Shape p{100, 24, 40, decay, round % 2 == 1};
          const Sample s(rng, p, kind);
          Fenced scratch(kernels::gla().scratch_floats(s.task()), NAN), whole(p.length * p.value_dim), y(whole.size());
          Fenced state = s.s0;
          kernels::gla().chunked(s.task(), s.s0.data(), nullptr, whole.data(), p.value_dim, scratch.data());
          for (int64_t begin = 0; begin < p.length;) {
            const int64_t length = std::min(p.length - begin, rng.below(40));
            const auto form = rng.below(2) ? kernels::gla().recurrent : kernels::gla().chunked;
            form(s.task(begin, length), state.data(), state.data(), y.data() + begin * p.value_dim, p.value_dim,
                 scratch.data());
            begin += length;
          }
          ASSERT_LE(distance(y, whole.doubles()), 4e-6 * magnitude(whole.doubles())) << describe(s, kind);
        }
  });
}

TEST(GlaKernel, AbsentStatesAreZerosAndNotWanted) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    const Shape p{21, 16, 20, Decay::vector};
    const Sample s(rng, p, Gates::mild);
    Fenced scratch(kernels::gla().scratch_floats(s.task()), NAN), a(p.length * p.value_dim), b(a.size());
    for (auto form : {kernels::gla().recurrent, kernels::gla().chunked}) {
      Fenced state(s.s0.size());
      form(s.task(), state.data(), state.data(), a.data(), p.value_dim, scratch.data());
      form(s.task(), nullptr, nullptr, b.data(), p.value_dim, scratch.data());
      for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]);
    }
  });
}

// Those of q, k, v, g and s0; added to `held`, or written where that is NaN.
std::vector<Fenced> gradients(const Sample& s, const Fenced& dy, const float* ds_end, float held = 0) {
  Fenced scratch(kernels::gla().backward_scratch_floats(s.task()), NAN);
  std::vector<Fenced> d;
  for (const Fenced* x : {&s.q, &s.k, &s.v, &s.g}) d.emplace_back(x->size(), held);
  d.emplace_back(s.s0.size());
  const auto sum = [&](size_t i) { return kernels::Sum{d[i].data(), !std::isnan(held)}; };
  kernels::gla().backward(s.task(), s.s0.data(), dy.data(), s.shape.value_dim, ds_end,
                          {.q = sum(0), .k = sum(1), .v = sum(2), .g = sum(3)}, d[4].data(), scratch.data());
  EXPECT_TRUE(scratch.intact());
  for (const Fenced& x : d) EXPECT_TRUE(x.intact());
  return d;
}

void check_gradients(Rng& rng, const Shape& p, Gates kind) {
  const Sample s(rng, p, kind);
  SCOPED_TRACE(describe(s, kind));
  const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), ds_end = Fenced::normal(rng, s.s0.size());
  const std::vector<Fenced> d = gradients(s, dy, ds_end.data());
  const Inputs in = s.doubles();
  // With one key channel a gradient can be a single sum over the value channels, whose terms may cancel.
  const double tolerance = p.key_dim == 1 ? 1e-4 : 1e-5;
  auto along = [&](Doubles Inputs::*which) {
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
  expect_gradient("dq", along(&Inputs::q), in.q, d[0], tolerance, rng);
  expect_gradient("dk", along(&Inputs::k), in.k, d[1], tolerance, rng);
  expect_gradient("dv", along(&Inputs::v), in.v, d[2], tolerance, rng);
  expect_gradient("ds0", along(&Inputs::s0), in.s0, d[4], tolerance, rng);
  expect_gradient("dg", along(&Inputs::g), in.g, d[3], tolerance, rng);
  for (float x : d[3]) ASSERT_TRUE(std::isfinite(x));
}

TEST(GlaKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(4);
    for (const Shape& p : shapes({0, 1, 2, 15, 16, 17, 35}))
      if (p.key_dim * p.value_dim < 1200) check_gradients(rng, p, kGates[rng.below(4)]);
    for (Decay decay : {Decay::none, Decay::scalar, Decay::vector})
      for (Gates kind : kGates)
        for (bool before : {false, true}) check_gradients(rng, {20, 65, 33, decay, before}, kind);
  });
}

// A gate that lets 1e-9 through has a gradient of that size, which must not drown in the rounding of larger sums.
TEST(GlaKernel, GradientsOfViolentGatesKeepTheirPrecision) {
  for_each_level([](IsaLevel) {
    Rng rng(5);
    for (Decay decay : {Decay::scalar, Decay::vector}) {
      Shape p{40, 8, 8, decay};
      Sample s(rng, p, Gates::open);
      for (float& x : s.g) x = -20;
      const Fenced dy = Fenced::normal(rng, p.length * p.value_dim);
      const Fenced dg = gradients(s, dy, nullptr)[3];
      // All but one step's decay is beyond f32: dg_t = exp(g) sum_kv q_t k_{t-1} v_{t-1} dy_t, and k v = s0 at the
      // start.
      for (int64_t t = 0; t < p.length; ++t)
        for (int64_t gate = 0; gate < p.gates(); ++gate) {
          double want = 0, size = 0;
          for (int64_t i = 0; i < 8; ++i)
            for (int64_t j = 0; j < 8; ++j) {
              if (decay == Decay::vector && i != gate) continue;
              const double before =
                  t ? static_cast<double>(s.k[(t - 1) * 8 + i]) * s.v[(t - 1) * 8 + j] : s.s0[i * 8 + j];
              const double term = kScale * std::exp(-20.0) * s.q[t * 8 + i] * before * dy[t * 8 + j];
              want += term, size += std::abs(term);
            }
          ASSERT_NEAR(dg[t * p.gates() + gate], want, 3e-6 * size) << t;
        }
    }
  });
}

TEST(GlaKernel, GradientsAddToWhatIsHeldAndAreWrittenElsewhere) {
  for_each_level([](IsaLevel) {
    Rng rng(6);
    for (Decay decay : {Decay::none, Decay::scalar, Decay::vector})
      for (bool before : {false, true}) {
        const Sample s(rng, {19, 9, 12, decay, before}, Gates::mild);
        const Fenced dy = Fenced::normal(rng, s.v.size());
        const std::vector<Fenced> once = gradients(s, dy, nullptr), more = gradients(s, dy, nullptr, 2),
                                  written = gradients(s, dy, nullptr, NAN);
        for (size_t which = 0; which < 4; ++which)
          for (int64_t i = 0; i < once[which].size(); ++i) {
            ASSERT_NEAR(more[which][i], 2 + once[which][i], 3e-6 * (1 + std::abs(once[which][i]))) << which;
            ASSERT_EQ(written[which][i], once[which][i]) << which;
          }
      }
  });
}

}  // namespace sennit::gla_kernel_test
