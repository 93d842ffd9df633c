#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/parallel.h"
#include "kernels/paired_gla.h"
#include "sequence/recurrences.h"
#include "support/buffers.h"
#include "support/emulated_tiles.h"
#include "support/levels.h"

namespace sennit::paired_gla_kernel_test {

using Doubles = std::vector<double>;
using kernels::Decay;
using kernels::PanelKernels;

struct Shape {
  int64_t length, key_dim, value_dim;
  Decay decay;
  bool reads_before;
  int64_t gates() const { return decay == Decay::vector ? key_dim : decay == Decay::scalar ? 1 : 0; }
};

enum class Gates { open, tiny, mild, strong, sudden, mixed, violent };
const Gates kGates[] = {Gates::open,   Gates::tiny,  Gates::mild,   Gates::strong,
                        Gates::sudden, Gates::mixed, Gates::violent};

float gate(Rng& rng, Gates kind) {
  const float choices[] = {0, -1e-4f, -0.5f, -20, -80, -INFINITY};
  switch (kind) {
    case Gates::open:
      return 0;
    case Gates::tiny:
      return static_cast<float>(-1e-4 * rng.uniform());
    case Gates::mild:
      return static_cast<float>(-0.2 * rng.uniform());
    case Gates::strong:
      return static_cast<float>(-2 * rng.uniform());
    case Gates::sudden:
      return rng.below(1000) ? static_cast<float>(-0.2 * rng.uniform()) : choices[3 + rng.below(3)];
    case Gates::mixed:
      return choices[rng.below(6)];
    case Gates::violent:
      return rng.below(2) ? -20.0f : -80.0f;
  }
  return 0;
}

// Rows of numbers of 8 significant bits, `stride` apart, so that only what the kernel makes of them is rounded.
struct Matrix {
  int64_t rows, width, stride = width + 3;
  Fenced x;
  Matrix(int64_t n, int64_t w) : rows(n), width(w), x(n * stride) {}
  Matrix(Rng& rng, int64_t n, int64_t w) : Matrix(n, w) {
    for (float& v : x) v = std::ldexp(std::round(std::ldexp(static_cast<float>(rng.normal()), 5)), -5);
  }
  float* data() { return x.data(); }
  const float* data() const { return x.data(); }
  Doubles doubles() const {
    Doubles d;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < width; ++j) d.push_back(x[i * stride + j]);
    return d;
  }
};

constexpr double kScale = 0.25;

struct Numbers {
  Doubles q, k, v, g, s0, dy, ds;
};
struct Results {
  Doubles y, s, dq, dk, dv, dg, ds0;
  std::vector<std::pair<const char*, const Doubles*>> all() const {
    return {{"y", &y}, {"s", &s}, {"dq", &dq}, {"dk", &dk}, {"dv", &dv}, {"dg", &dg}, {"ds0", &ds0}};
  }
};

// Token by token and back, as the header of kernels/gla.h defines it.
Results naive(const Shape& p, const Numbers& in) {
  const int64_t T = p.length, K = p.key_dim, V = p.value_dim, G = p.gates();
  const auto decay = [&](int64_t t, int64_t i) { return G ? std::exp(in.g[t * G + (G > 1 ? i : 0)]) : 1; };
  Results r{Doubles(T * V), in.s0, Doubles(T * K), Doubles(T * K), Doubles(T * V), Doubles(T * G), in.ds};
  std::vector<Doubles> states{in.s0};
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t i = 0; i < K; ++i)
      for (int64_t j = 0; j < V; ++j) r.s[i * V + j] = decay(t, i) * r.s[i * V + j] + in.k[t * K + i] * in.v[t * V + j];
    states.push_back(r.s);
    for (int64_t i = 0; i < K; ++i)
      for (int64_t j = 0; j < V; ++j)
        r.y[t * V + j] += kScale * states[p.reads_before ? t : t + 1][i * V + j] * in.q[t * K + i];
  }
  for (int64_t t = T - 1; t >= 0; --t)
    for (int64_t i = 0; i < K; ++i) {
      const double e = decay(t, i);
      for (int64_t j = 0; j < V; ++j) {
        double& ds = r.ds0[i * V + j];
        const double before = states[t][i * V + j], dy = kScale * in.dy[t * V + j];
        r.dq[t * K + i] += dy * states[p.reads_before ? t : t + 1][i * V + j];
        if (!p.reads_before) ds += dy * in.q[t * K + i];
        r.dk[t * K + i] += ds * in.v[t * V + j];
        r.dv[t * V + j] += ds * in.k[t * K + i];
        if (G) r.dg[t * G + (G > 1 ? i : 0)] += ds * e * before;
        ds *= e;
        if (p.reads_before) ds += dy * in.q[t * K + i];
      }
    }
  return r;
}

// With no sign left the definition gives the sums of the sizes of their terms, to which rounding is relative.
Numbers absolute(Numbers in) {
  for (Doubles* x : {&in.q, &in.k, &in.v, &in.s0, &in.dy, &in.ds})
    for (double& v : *x) v = std::fabs(v);
  return in;
}

struct Sample {
  Shape shape;
  Gates kind;
  Matrix q, k, v, g, dy;
  Fenced s0, ds;
  Sample(Rng& rng, const Shape& p, Gates gates)
      : shape(p),
        kind(gates),
        q(rng, p.length, p.key_dim),
        k(rng, p.length, p.key_dim),
        v(rng, p.length, p.value_dim),
        g(p.length, p.gates()),
        dy(rng, p.length, p.value_dim),
        s0(Fenced::normal(rng, p.key_dim * p.value_dim)),
        ds(Fenced::normal(rng, p.key_dim * p.value_dim)) {
    for (float& x : g.x) x = gate(rng, kind);
  }
  kernels::GlaTask task(int64_t begin, int64_t length) const {
    return {.q = q.data() + begin * q.stride,
            .k = k.data() + begin * k.stride,
            .v = v.data() + begin * v.stride,
            .g = shape.gates() ? g.data() + begin * g.stride : nullptr,
            .q_stride = q.stride,
            .k_stride = k.stride,
            .v_stride = v.stride,
            .g_stride = g.stride,
            .length = length,
            .key_dim = shape.key_dim,
            .value_dim = shape.value_dim,
            .scale = static_cast<float>(kScale),
            .decay = shape.decay,
            .reads_before = shape.reads_before};
  }
  kernels::GlaTask task() const { return task(0, shape.length); }
  Numbers numbers() const {
    return {q.doubles(), k.doubles(), v.doubles(), g.doubles(), s0.doubles(), dy.doubles(), ds.doubles()};
  }
  std::string str() const {
    return fmt::format("T {} K {} V {} decay {} gates {}{}", shape.length, shape.key_dim, shape.value_dim,
                       static_cast<int>(shape.decay), static_cast<int>(kind), shape.reads_before ? " before" : "");
  }
};

Results run(const Sample& x, const PanelKernels& panels) {
  const kernels::PairedGla& kernel = kernels::paired_gla();
  const Shape& p = x.shape;
  Matrix y(p.length, p.value_dim), dq(p.length, p.key_dim), dk = dq, dv = y, dg(p.length, p.gates());
  Fenced s(x.s0.size(), NAN), ds0(x.s0.size()), scratch(kernel.forward_floats(x.task()), NAN),
      back(kernel.backward_floats(x.task()), NAN);
  kernel.forward(x.task(), panels, x.s0.data(), s.data(), y.data(), y.stride, scratch.data());
  kernel.backward(x.task(), panels, x.s0.data(), x.dy.data(), x.dy.stride, x.ds.data(),
                  {.q = {dq.data()}, .k = {dk.data()}, .v = {dv.data()}, .g = {dg.data()}}, ds0.data(), back.data());
  for (const Fenced* f : {&y.x, &dq.x, &dk.x, &dv.x, &dg.x, &s, &ds0, &scratch, &back})
    EXPECT_TRUE(f->intact()) << x.str() << " wrote past an end";
  for (const Matrix* m : {&y, &dq, &dk, &dv, &dg})
    for (int64_t i = 0; i < m->x.size(); ++i)
      EXPECT_TRUE(i % m->stride < m->width || m->x[i] == 0) << x.str() << " wrote between rows";
  return {y.doubles(), s.doubles(), dq.doubles(), dk.doubles(), dv.doubles(), dg.doubles(), ds0.doubles()};
}

// How many of a term's factors were rounded to bf16, each by half a last digit of 8 bits at most: the pairs' weights,
// or the state and what was added to it; with a decay for each channel queries and keys as well. The rest is f32.
double digits(const Shape& p) {
  return p.decay == Decay::vector ? 3 : 2;
}

// The largest error in units of what may be lost; infinite for NaN.
double worst(const Shape& p, const Results& got, const Results& want, const Results& sizes, std::string* where) {
  double most = 0;
  const auto g = got.all(), w = want.all(), s = sizes.all();
  for (size_t n = 0; n < g.size(); ++n)
    for (size_t i = 0; i < g[n].second->size(); ++i) {
      const double error = std::fabs((*g[n].second)[i] - (*w[n].second)[i]);
      const double units = error / ((digits(p) * 0x1p-8 + 1e-4) * (*s[n].second)[i] + 1e-30);
      if (!(units <= most))
        most = std::isnan(units) ? INFINITY : units,
        *where = fmt::format("{} {}: {} for {}", g[n].first, i, (*g[n].second)[i], (*w[n].second)[i]);
    }
  return most;
}
void expect_near(const Sample& x, const Results& got, const std::string& level) {
  std::string where;
  const double most = worst(x.shape, got, naive(x.shape, x.numbers()), naive(x.shape, absolute(x.numbers())), &where);
  ASSERT_LE(most, 1) << level << " " << x.str() << " " << where;
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  const int64_t dims[][3] = {{0, 16, 16},   {1, 1, 1},     {2, 3, 65},    {3, 65, 3},   {5, 16, 16}, {16, 32, 8},
                             {17, 17, 40},  {63, 64, 64},  {64, 33, 16},  {65, 16, 33}, {70, 1, 20}, {129, 20, 1},
                             {130, 64, 24}, {200, 24, 64}, {66, 128, 16}, {40, 256, 5}, {67, 5, 256}};
  for (const auto& d : dims)
    for (Decay decay : {Decay::none, Decay::scalar, Decay::vector})
      for (bool before : {false, true}) all.push_back({d[0], d[1], d[2], decay, before});
  return all;
}

TEST(PairedGla, EveryShapeAgreesWithDouble) {
  for_each_level([](IsaLevel level) {
    Rng rng(1);
    const kernels::Gemm& gemm = kernels::gemm();
    for (const Shape& p : shapes())
      for (Gates kind : kGates) {
        const Sample x(rng, p, kind);
        expect_near(x, run(x, *gemm.bf16.wide), to_string(level));
        if (level == IsaLevel::amx) expect_near(x, run(x, *gemm.bf16.narrow), to_string(level));
        if (testing::Test::HasFatalFailure()) return;
      }
  });
}

#if defined(__x86_64__)
template <bool kWide>
void multiply_emulated(const kernels::PanelProduct& product) {
  EmulatedTiles unit;
  kernels::TileProduct<EmulatedTiles, kWide>(unit, product).run();
}

TEST(PairedGla, TilesAgreeWithDouble) {
  if (!isa_level_refusal(IsaLevel::avx512).empty()) GTEST_SKIP() << isa_level_refusal(IsaLevel::avx512);
  Rng rng(2);
  PanelKernels panels = *kernels::amx::gemm_table.bf16.timed;
  panels.done = [] {};
  for (const auto multiply : {multiply_emulated<true>, multiply_emulated<false>})
    for (const Shape& p : shapes()) {
      panels.multiply = multiply;
      const Sample x(rng, p, kGates[rng.below(std::ssize(kGates))]);
      expect_near(x, run(x, panels), "emulated tiles");
      if (testing::Test::HasFatalFailure()) return;
    }
}
#endif

// What is a token off, or reads a token too early or late, is seen.
TEST(PairedGla, WrongDecaysAreSeen) {
  Rng rng(3);
  for (Decay decay : {Decay::scalar, Decay::vector})
    for (bool before : {false, true}) {
      const Shape p{100, 24, 16, decay, before};
      const Sample x(rng, p, Gates::mild);
      const Results got = run(x, *kernels::gemm().bf16.timed), sizes = naive(p, absolute(x.numbers()));
      std::string where;
      Numbers late = x.numbers();
      std::rotate(late.g.begin(), late.g.begin() + p.gates(), late.g.end());
      EXPECT_GT(worst(p, got, naive(p, late), sizes, &where), 2) << x.str();
      Shape other = p;
      other.reads_before = !before;
      EXPECT_GT(worst(p, got, naive(other, x.numbers()), sizes, &where), 2) << x.str();
    }
}

// A gate that lets 1e-9 through has a gradient of that size, which must not drown in the rounding of larger sums: that
// the bound holds element by element is what EveryShapeAgreesWithDouble says; here, that such elements are there.
TEST(PairedGla, GradientsOfViolentGatesAreSmallAndKept) {
  Rng rng(4);
  for (Decay decay : {Decay::scalar, Decay::vector}) {
    const Shape p{100, 16, 16, decay, false};
    Sample x(rng, p, Gates::open);
    for (float& g : x.g.x) g = -20;
    const Results got = run(x, *kernels::gemm().bf16.timed), want = naive(p, x.numbers());
    double size = 0, error = 0;
    for (size_t i = 0; i < got.dg.size(); ++i) {
      size = std::max(size, std::fabs(want.dg[i]));
      error = std::max(error, std::fabs(got.dg[i] - want.dg[i]));
    }
    EXPECT_LT(size, 1e-6);
    EXPECT_GT(size, 1e-9);
    EXPECT_LT(error, 0.02 * size);
  }
}

TEST(PairedGla, LaterTokensChangeNothingEarlier) {
  for_each_level([](IsaLevel) {
    Rng rng(5);
    for (Decay decay : {Decay::scalar, Decay::vector}) {
      const Shape p{100, 24, 20, decay, false};
      Sample x(rng, p, Gates::mild);
      const auto first_rows = [&](int64_t n) {
        Doubles y = run(x, *kernels::gemm().bf16.timed).y;
        y.resize(n * p.value_dim);
        return y;
      };
      for (const int64_t at : {1, 30, 63, 64, 99}) {
        const Doubles before = first_rows(at);
        for (Matrix* m : {&x.q, &x.k, &x.v, &x.g}) m->x[at * m->stride] -= 1;
        ASSERT_EQ(first_rows(at), before) << x.str() << " at " << at;
        const float mild = x.g.x[at * x.g.stride];
        for (const float violent : {-50.0f, -INFINITY}) {
          x.g.x[at * x.g.stride] = violent;
          ASSERT_EQ(first_rows(at), before) << x.str() << " at " << at << " with gate " << violent;
        }
        x.g.x[at * x.g.stride] = mild;
      }
    }
  });
}

TEST(PairedGla, SplitsWithCarriedStateGiveTheWhole) {
  for_each_level([](IsaLevel) {
    Rng rng(6);
    const kernels::PairedGla& kernel = kernels::paired_gla();
    for (const Gates kind : kGates)
      for (const Decay decay : {Decay::none, Decay::scalar, Decay::vector}) {
        const Sample x(rng, {150, 24, 20, decay, rng.below(2) == 1}, kind);
        Results split = run(x, *kernels::gemm().bf16.timed);
        Matrix y(150, 20);
        Fenced state = x.s0, scratch(kernel.forward_floats(x.task()), NAN);
        for (int64_t begin = 0, length; begin < 150; begin += length) {
          length = std::min(150 - begin, 1 + rng.below(80));
          kernel.forward(x.task(begin, length), *kernels::gemm().bf16.timed, state.data(), state.data(),
                         y.data() + begin * y.stride, y.stride, scratch.data());
        }
        split.y = y.doubles(), split.s = state.doubles();
        expect_near(x, split, "split");
      }
  });
}

TEST(PairedGla, AbsentStatesAreZerosAndNotWantedAndGradientsAreAddedOrWritten) {
  Rng rng(7);
  const kernels::PairedGla& kernel = kernels::paired_gla();
  const PanelKernels& panels = *kernels::gemm().bf16.timed;
  for (const Decay decay : {Decay::scalar, Decay::vector}) {
    Sample x(rng, {70, 16, 20, decay, false}, Gates::mild);
    std::fill(x.s0.begin(), x.s0.end(), 0.0f), std::fill(x.ds.begin(), x.ds.end(), 0.0f);
    const Results want = run(x, panels);
    Matrix y(70, 20), dq(70, 16), dk(70, 16), dv(70, 20), dg(70, x.shape.gates());
    Fenced scratch(kernel.forward_floats(x.task()), NAN), back(kernel.backward_floats(x.task()), NAN);
    kernel.forward(x.task(), panels, nullptr, nullptr, y.data(), y.stride, scratch.data());
    EXPECT_EQ(y.doubles(), want.y);
    const std::pair<Matrix*, const Doubles*> sums[] = {
        {&dq, &want.dq}, {&dk, &want.dk}, {&dv, &want.dv}, {&dg, &want.dg}};
    for (const bool holds : {true, false}) {
      for (const auto& [m, of] : sums)
        for (float& f : m->x) f = holds ? 1 : NAN;
      const auto sum = [&](Matrix& m) { return kernels::Sum{m.data(), holds}; };
      kernel.backward(x.task(), panels, nullptr, x.dy.data(), x.dy.stride, nullptr,
                      {.q = sum(dq), .k = sum(dk), .v = sum(dv), .g = sum(dg)}, nullptr, back.data());
      for (const auto& [got, of] : sums)
        for (size_t i = 0; i < of->size(); ++i)
          ASSERT_NEAR(got->doubles()[i] - (holds ? 1 : 0), (*of)[i], 1e-5 * (1 + std::fabs((*of)[i])));
    }
  }
}

// Three heads; two long segments, one of which starts from a state, and one too short to be paired.
struct Packed {
  Var q, k, v, g, y;
  Packed(bool paired, bool gates_of_channels, bool exact = false) {
    Rng rng(8);
    const auto rows = [&](int64_t width, const char* name, float shift) {
      Tensor t({175, width});
      Rng stream = rng.fork(name);
      for (float& x : t.span()) x = static_cast<float>(stream.normal());
      for (float& x : t.span())
        if (shift < 0) x = -0.1f * std::fabs(x);
      return Var::leaf(std::move(t));
    };
    q = rows(3 * 24, "q", 0), k = rows(3 * 24, "k", 0), v = rows(3 * 40, "v", 0),
    g = rows(gates_of_channels ? 3 * 24 : 3, "g", -1);
    SequenceState state;
    const Context context{.exact = exact};
    const Segment segments[] = {{0, 100, 0, nullptr}, {100, 70, 0, &state}, {170, 5, 0, nullptr}};
    Recording on(true);
    y = gla(q, k, v, g, {segments, &context}, {.heads = 3, .scale = 0.2f, .paired = paired});
    Tensor d(y.shape());
    Rng stream = rng.fork("d");
    for (float& x : d.span()) x = static_cast<float>(stream.normal());
    backward(y, d);
  }
  std::vector<Tensor> all() const { return {y.value(), q.grad(), k.grad(), v.grad(), g.grad()}; }
};

double apart(const Tensor& a, const Tensor& b) {
  double most = 0, size = 0;
  for (int64_t i = 0; i < a.elements(); ++i)
    most = std::max(most, std::fabs(double{a.data()[i]} - b.data()[i])),
    size = std::max(size, std::fabs(double{b.data()[i]}));
  return most / size;
}

TEST(PairedGla, TheOperationPairsLongSegmentsAlone) {
  for_each_level([](IsaLevel level) {
    for (const bool channels : {false, true}) {
      const auto plain = Packed(false, channels).all(), paired = Packed(true, channels).all();
      for (size_t i = 0; i < plain.size(); ++i) {
        EXPECT_GT(apart(paired[i], plain[i]), 1e-5) << to_string(level) << " " << i;
        EXPECT_LT(apart(paired[i], plain[i]), 0.02) << to_string(level) << " " << i;
        EXPECT_EQ(apart(paired[i].slice(170, 5), plain[i].slice(170, 5)), 0);
      }
      EXPECT_EQ(apart(Packed(true, channels, true).y.value(), Packed(false, channels, true).y.value()), 0);
    }
  });
}

TEST(PairedGla, ThreadsDoNotShow) {
  const int before = thread_count();
  for (const bool channels : {false, true}) {
    set_thread_count(1);
    const auto one = Packed(true, channels).all();
    set_thread_count(3);
    const auto three = Packed(true, channels).all();
    for (size_t i = 0; i < one.size(); ++i) EXPECT_EQ(apart(one[i], three[i]), 0);
  }
  set_thread_count(before);
}

}  // namespace sennit::paired_gla_kernel_test
