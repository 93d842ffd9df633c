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
  Doubles y, s, z;
};

// How a wrong form goes wrong; each must be told from the right one.
enum class Wrong { none, late_read, early_output, faded_writes, no_system, lost_state, late_gate };
const Wrong kWrongForms[] = {Wrong::late_read, Wrong::early_output, Wrong::faded_writes, Wrong::no_system,
                             Wrong::lost_state};
constexpr int64_t kBorder = 8;  // a chunk

// The definition as it stands, one token of one value channel: s [key_dim, value_dim] at column j; `start` is the state
// that the wrong form without a triangular system reads.
void step(const Shape& p, const Inputs& in, Wrong wrong, int64_t t, int64_t j, const Doubles& start, Outputs& out) {
  const int64_t K = p.key_dim, V = p.value_dim;
  const auto row = [&](const Doubles& x, int64_t i) { return x[t * K + i]; };
  double held = 0, early = 0, y = 0;
  for (int64_t i = 0; i < K; ++i) {
    const double s = wrong == Wrong::no_system ? start[i * V + j] : out.s[i * V + j];
    held += row(in.a, i) * s * (wrong == Wrong::late_read ? std::exp(row(in.g, i)) : 1);
    early += row(in.q, i) * out.s[i * V + j];
  }
  for (int64_t i = 0; i < K; ++i) {
    double& s = out.s[i * V + j];
    const double e = std::exp(row(in.g, i)), written = row(in.b, i) * held + row(in.k, i) * in.v[t * V + j];
    s = wrong == Wrong::faded_writes ? e * (s + written) : e * s + written;
    y += row(in.q, i) * s;
  }
  out.z[t * V + j] = held;
  out.y[t * V + j] = kScale * (wrong == Wrong::early_output ? early : y);
}

Outputs naive(const Shape& p, const Inputs& in, Wrong wrong = Wrong::none) {
  Outputs out{Doubles(p.length * p.value_dim), in.s0, Doubles(p.length * p.value_dim)};
  Doubles start;
  for (int64_t t = 0; t < p.length; ++t) {
    if (t % kBorder == 0) start = out.s;
    if (t == kBorder && wrong == Wrong::lost_state) out.s.assign(out.s.size(), 0);
    for (int64_t j = 0; j < p.value_dim; ++j) step(p, in, wrong, t, j, start, out);
  }
  return out;
}

// The gradient of the inner product of dy with y and ds with the last state, token by token from the last.
Inputs naive_gradients(const Shape& p, const Inputs& in, const Doubles& dy, Doubles ds, Wrong wrong = Wrong::none) {
  const int64_t K = p.key_dim, V = p.value_dim, T = p.length;
  std::vector<Doubles> states{in.s0};
  for (int64_t t = 0; t < T; ++t) {
    Outputs one{Doubles(T * V), states.back(), Doubles(T * V)};
    for (int64_t j = 0; j < V; ++j) step(p, in, Wrong::none, t, j, {}, one);
    states.push_back(one.s);
  }
  Inputs d{Doubles(T * K), Doubles(T * K), Doubles(T * V), Doubles(T * K), Doubles(T * K), Doubles(T * K), {}};
  for (int64_t t = T - 1; t >= 0; --t) {
    const Doubles &before = states[t], &after = states[t + 1];
    for (int64_t j = 0; j < V; ++j) {
      const double out = kScale * dy[t * V + j], v = in.v[t * V + j];
      double z = 0, dz = 0;
      for (int64_t i = 0; i < K; ++i) {
        const int64_t at = t * K + i, s = i * V + j;
        z += in.a[at] * before[s];
        ds[s] += out * in.q[at];
        dz += in.b[at] * ds[s];
        d.q[at] += out * (wrong == Wrong::early_output ? before : after)[s];
        d.k[at] += v * ds[s];
        d.v[t * V + j] += in.k[at] * ds[s];
      }
      for (int64_t i = 0; i < K; ++i) {
        const int64_t at = t * K + i, s = i * V + j;
        const double e = std::exp(in.g[at]);
        d.b[at] += z * ds[s];
        d.a[at] += dz * before[s] * (wrong == Wrong::late_read ? e : 1);
        if (wrong == Wrong::late_gate)
          d.g[at] += after[s] * ds[s];
        else
          d.g[at] += e * before[s] * ds[s];
        ds[s] = e * ds[s] + (wrong == Wrong::no_system ? 0 : dz * in.a[at]);
      }
    }
    if (t == kBorder && wrong == Wrong::lost_state) ds.assign(ds.size(), 0);
  }
  d.s0 = ds;
  return d;
}

enum class Gates { open, mild, mixed, violent };
const Gates kGates[] = {Gates::open, Gates::mild, Gates::mixed, Gates::violent};

float gate(Rng& rng, Gates kind) {
  const float choices[] = {0, -1e-4f, -0.5f, -20, -80, -INFINITY};
  switch (kind) {
    case Gates::open:
      return static_cast<float>(-1e-4 * rng.uniform());
    case Gates::mild:
      return static_cast<float>(-0.6 * rng.uniform());
    case Gates::mixed:
      return choices[rng.below(6)];
    case Gates::violent:
      return static_cast<float>(-20 - 5 * rng.uniform());
  }
  return 0;
}

// As RWKV-7 uses it: a of length 1, b its negative times rates in [0, 1].
struct Sample {
  Shape shape;
  Fenced q, k, v, a, b, g, s0, kept, z;
  Sample(Rng& rng, const Shape& p, Gates kind)
      : shape(p),
        q(Fenced::normal(rng, p.length * p.key_dim)),
        k(Fenced::normal(rng, p.length * p.key_dim)),
        v(Fenced::normal(rng, p.length * p.value_dim)),
        a(Fenced::normal(rng, p.length * p.key_dim)),
        b(p.length * p.key_dim),
        g(p.length * p.key_dim),
        s0(Fenced::normal(rng, p.key_dim * p.value_dim)),
        kept(task().kept_floats(), NAN),
        z(p.length * p.value_dim, NAN) {
    const int64_t K = p.key_dim;
    for (float& x : g) x = gate(rng, kind);
    for (int64_t t = 0; t < p.length; ++t) {
      if (t > 0 && rng.below(4) == 0)  // the same again: the system inside the chunk is far from the identity
        std::copy_n(a.data() + (t - 1) * K, K, a.data() + t * K);
      double squares = 1e-12;
      for (int64_t i = 0; i < K; ++i) squares += std::pow(a[t * K + i], 2);
      for (int64_t i = 0; i < K; ++i) {
        a[t * K + i] /= static_cast<float>(std::sqrt(squares));
        b[t * K + i] = static_cast<float>(-rng.uniform()) * a[t * K + i];
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
  kernels::DplrTask keeping() {
    kernels::DplrTask t = task();
    t.kept = kept.data(), t.z = z.data();
    return t;
  }
  Inputs doubles() const {
    return {q.doubles(), k.doubles(), v.doubles(), a.doubles(), b.doubles(), g.doubles(), s0.doubles()};
  }
};

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (auto [key_dim, value_dim] :
       {std::pair<int64_t, int64_t>{1, 3}, {3, 1}, {3, 65}, {17, 8}, {16, 16}, {31, 33}, {64, 64}})
    for (int64_t length : {0, 1, 2, 7, 8, 9, 15, 16, 17, 35, 63, 64, 65}) all.push_back({length, key_dim, value_dim});
  for (int64_t length : {127, 128, 129, 200}) all.push_back({length, 24, 40});
  all.push_back({21, 129, 66});
  return all;
}

std::string describe(const Shape& p, Gates kind) {
  return "T " + std::to_string(p.length) + " K " + std::to_string(p.key_dim) + " V " + std::to_string(p.value_dim) +
         " gates " + std::to_string(static_cast<int>(kind));
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

struct Got {
  Fenced y, s;
};
Got run(Sample& s) {
  Fenced scratch(kernels::dplr().scratch_floats(s.task()), NAN);
  Got got{Fenced(s.shape.length * s.shape.value_dim, NAN), s.s0};
  s.kept = Fenced(s.kept.size(), NAN), s.z = Fenced(s.z.size(), NAN);
  kernels::dplr().forward(s.keeping(), got.s.data(), got.s.data(), got.y.data(), s.shape.value_dim, scratch.data());
  EXPECT_TRUE(got.y.intact() && got.s.intact() && scratch.intact() && s.kept.intact() && s.z.intact());
  return got;
}

TEST(DplrKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& p : shapes())
      for (Gates kind : kGates) {
        Sample s(rng, p, kind);
        SCOPED_TRACE(describe(p, kind));
        const Outputs want = naive(p, s.doubles());
        // Outputs are sums of about key_dim terms of the size of q and of the largest state so far.
        const double s_size = 1 + magnitude(want.s) + magnitude(s.s0.doubles()) + magnitude(want.y);
        const double y_size = kScale * s_size * (3 + std::sqrt(static_cast<double>(p.key_dim)));
        const Got got = run(s);
        ASSERT_LE(distance(got.s, want.s), 1e-6 * s_size);
        ASSERT_LE(distance(got.y, want.y), 1e-6 * y_size);
        ASSERT_LE(distance(s.z, want.z), 1e-6 * y_size / kScale);
      }
  });
}

TEST(DplrKernel, WrongFormsAreTold) {
  for_each_level([](IsaLevel) {
    Rng rng(7);
    const Shape p{19, 16, 20};
    for (Gates kind : {Gates::mild, Gates::mixed}) {
      Sample s(rng, p, kind);
      for (Wrong wrong : kWrongForms) {
        const Outputs other = naive(p, s.doubles(), wrong);
        ASSERT_GE(distance(run(s).y, other.y), 1e-2 * magnitude(other.y)) << static_cast<int>(wrong);
      }
    }
  });
}

TEST(DplrKernel, KeptStatesAreThoseBeforeTheirTokens) {
  for_each_level([](IsaLevel) {
    Rng rng(8);
    const Shape p{2 * kernels::DplrTask::kKept + 1, 9, 20};
    Sample s(rng, p, Gates::mild);
    const Got got = run(s);
    for (int64_t i = 0; i < 2; ++i) {
      const Outputs want = naive({(i + 1) * kernels::DplrTask::kKept, p.key_dim, p.value_dim}, s.doubles());
      Fenced state(s.s0.size());
      std::copy_n(s.kept.data() + i * state.size(), state.size(), state.data());
      ASSERT_LE(distance(state, want.s), 1e-5 * magnitude(want.s)) << i;
    }
    Fenced plain(got.y.size(), NAN), end(s.s0.size()), scratch(kernels::dplr().scratch_floats(s.task()), NAN);
    kernels::dplr().forward(s.task(), s.s0.data(), end.data(), plain.data(), p.value_dim, scratch.data());
    for (int64_t i = 0; i < plain.size(); ++i) ASSERT_EQ(plain[i], got.y[i]);  // with nothing kept
  });
}

TEST(DplrKernel, AnySplitGivesTheSameBits) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    const Shape p{50, 24, 40};
    const Sample s(rng, p, Gates::mixed);
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

TEST(DplrKernel, AbsentStatesAreZeros) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    const Shape p{21, 16, 20};
    const Sample s(rng, p, Gates::mild);
    Fenced scratch(kernels::dplr().scratch_floats(s.task()), NAN), a(p.length * p.value_dim), b(a.size());
    Fenced state(s.s0.size()), end(state.size(), NAN);
    kernels::dplr().forward(s.task(), state.data(), state.data(), a.data(), p.value_dim, scratch.data());
    kernels::dplr().forward(s.task(), nullptr, end.data(), b.data(), p.value_dim, scratch.data());
    for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]);
    for (int64_t i = 0; i < end.size(); ++i) ASSERT_EQ(end[i], state[i]);
  });
}

const std::pair<const char*, Doubles Inputs::*> kParts[] = {{"q", &Inputs::q},  {"k", &Inputs::k}, {"v", &Inputs::v},
                                                            {"a", &Inputs::a},  {"b", &Inputs::b}, {"g", &Inputs::g},
                                                            {"s0", &Inputs::s0}};

// In the order of kParts; added to `held`, or written where that is NaN.
std::vector<Fenced> gradients(const Sample& s, const kernels::DplrTask& task, const Fenced& dy, const float* ds_end,
                              float held = 0) {
  const bool holds = !std::isnan(held);
  std::vector<Fenced> d;
  for (const Fenced* x : {&s.q, &s.k, &s.v, &s.a, &s.b, &s.g}) d.emplace_back(x->size(), held);
  d.emplace_back(s.s0.size(), holds ? held : 0);
  const auto sum = [&](size_t i) { return kernels::Sum{d[i].data(), holds}; };
  Fenced scratch(kernels::dplr().backward_scratch_floats(task), NAN);
  kernels::dplr().backward(task, s.s0.data(), dy.data(), s.shape.value_dim, ds_end,
                           {.q = sum(0), .k = sum(1), .v = sum(2), .a = sum(3), .b = sum(4), .g = sum(5)}, d[6].data(),
                           scratch.data());
  EXPECT_TRUE(scratch.intact());
  for (const Fenced& x : d) EXPECT_TRUE(x.intact());
  return d;
}

TEST(DplrKernel, NaiveGradientsAreThoseOfCentralDifferences) {
  Rng rng(4);
  for (const Shape& p : {Shape{1, 3, 2}, Shape{9, 5, 4}, Shape{20, 3, 6}})
    for (Gates kind : {Gates::open, Gates::mild, Gates::mixed}) {
      const Sample s(rng, p, kind);
      const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), ds = Fenced::normal(rng, s.s0.size());
      const Inputs in = s.doubles(), d = naive_gradients(p, in, dy.doubles(), ds.doubles());
      for (const auto& [name, part] : kParts) {
        Fenced floats(static_cast<int64_t>((d.*part).size()));
        std::copy((d.*part).begin(), (d.*part).end(), floats.begin());
        const auto loss = [&, which = part](const Doubles& x) {
          Inputs at = in;
          at.*which = x;
          const Outputs o = naive(p, at);
          return std::inner_product(o.y.begin(), o.y.end(), dy.begin(), 0.0) +
                 std::inner_product(o.s.begin(), o.s.end(), ds.begin(), 0.0);
        };
        expect_gradient(name, loss, in.*part, floats, 1e-6, rng);
      }
    }
}

TEST(DplrKernel, GradientsAgreeWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(5);
    for (const Shape& p : shapes())
      for (Gates kind : kGates) {
        Sample s(rng, p, kind);
        SCOPED_TRACE(describe(p, kind));
        const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), ds = Fenced::normal(rng, s.s0.size());
        const Inputs want = naive_gradients(p, s.doubles(), dy.doubles(), ds.doubles());
        run(s);
        const std::vector<Fenced> d = gradients(s, s.keeping(), dy, ds.data());
        // With one key channel what goes through many tokens is a small difference of larger numbers.
        const double extra = p.key_dim == 1 ? 1 : 0;
        for (size_t i = 0; i < d.size(); ++i)
          ASSERT_LE(distance(d[i], want.*kParts[i].second), 5e-6 * (magnitude(want.*kParts[i].second) + extra))
              << kParts[i].first;
      }
  });
}

TEST(DplrKernel, WrongGradientsAreTold) {
  for_each_level([](IsaLevel) {
    Rng rng(10);
    const Shape p{19, 16, 20};
    Sample s(rng, p, Gates::mild);
    const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), ds = Fenced::normal(rng, s.s0.size());
    run(s);
    const std::vector<Fenced> d = gradients(s, s.keeping(), dy, ds.data());
    const auto told = [&](Wrong wrong, size_t part) {
      const Inputs other = naive_gradients(p, s.doubles(), dy.doubles(), ds.doubles(), wrong);
      return distance(d[part], other.*kParts[part].second) > 1e-2 * magnitude(other.*kParts[part].second);
    };
    EXPECT_TRUE(told(Wrong::early_output, 0));
    EXPECT_TRUE(told(Wrong::late_read, 3));
    EXPECT_TRUE(told(Wrong::late_gate, 5));
    for (size_t part = 1; part < 7; ++part)
      EXPECT_TRUE(told(Wrong::no_system, part) && told(Wrong::lost_state, part)) << kParts[part].first;
    EXPECT_FALSE(told(Wrong::none, 0));
  });
}

// What is kept is what the gradients behind it begin with: of another state, or other z, they are others.
TEST(DplrKernel, GradientsAreOfWhatIsKept) {
  Rng rng(11);
  const Shape p{kernels::DplrTask::kKept + 3, 8, 12};
  Sample s(rng, p, Gates::open);
  const Fenced dy = Fenced::normal(rng, p.length * p.value_dim);
  for (Fenced* kept : {&s.kept, &s.z}) {
    run(s);
    const std::vector<Fenced> right = gradients(s, s.keeping(), dy, nullptr);
    for (float& x : *kept) x += 1;
    EXPECT_GE(distance(gradients(s, s.keeping(), dy, nullptr)[5], right[5].doubles()),
              1e-2 * magnitude(right[5].doubles()));
  }
}

TEST(DplrKernel, GradientsAddToWhatIsHeldAndAreWrittenElsewhere) {
  for_each_level([](IsaLevel) {
    Rng rng(6);
    const Shape p{19, 9, 12};
    Sample s(rng, p, Gates::mild);
    const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), zeros(s.s0.size());
    run(s);
    const std::vector<Fenced> once = gradients(s, s.keeping(), dy, nullptr),
                              more = gradients(s, s.keeping(), dy, zeros.data(), 2),
                              written = gradients(s, s.keeping(), dy, nullptr, NAN);
    for (size_t which = 0; which < once.size(); ++which)
      for (int64_t i = 0; i < once[which].size(); ++i) {
        ASSERT_NEAR(more[which][i], 2 + once[which][i], 3e-6 * (1 + std::abs(once[which][i]))) << which;
        ASSERT_EQ(written[which][i], once[which][i]) << which;
      }
  });
}

}  // namespace sennit::dplr_kernel_test
