#include <gtest/gtest.h>

#include <cmath>

#include "kernels/delta.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::delta_kernel_test {

using Doubles = std::vector<double>;

constexpr double kScale = 0.3;

struct Shape {
  int64_t length, key_dim, value_dim;
};
struct Inputs {
  Doubles q, k, v, g, beta, s0;
};
struct Outputs {
  Doubles y, s, errors;
};

// The definition as it stands: S <- exp(g) (S - beta k (k^T S)) + beta k v^T.
Outputs naive(const Shape& p, const Inputs& in) {
  const int64_t K = p.key_dim, V = p.value_dim;
  Outputs out{Doubles(p.length * V), in.s0, Doubles(p.length * V)};
  for (int64_t t = 0; t < p.length; ++t) {
    const double alpha = in.g.empty() ? 1 : std::exp(in.g[t]);
    for (int64_t j = 0; j < V; ++j) {
      double along = 0, y = 0;
      for (int64_t i = 0; i < K; ++i) along += in.k[t * K + i] * out.s[i * V + j];
      out.errors[t * V + j] = in.v[t * V + j] - alpha * along;
      for (int64_t i = 0; i < K; ++i) {
        double& s = out.s[i * V + j];
        s = alpha * (s - in.beta[t] * in.k[t * K + i] * along) + in.beta[t] * in.k[t * K + i] * in.v[t * V + j];
        y += in.q[t * K + i] * s;
      }
      out.y[t * V + j] = kScale * y;
    }
  }
  return out;
}

enum class Gates { absent, open, mild, mixed, violent };
const Gates kGates[] = {Gates::absent, Gates::open, Gates::mild, Gates::mixed, Gates::violent};

float gate(Rng& rng, Gates kind) {
  const float choices[] = {0, -1e-4f, -0.5f, -20, -80, -INFINITY};
  switch (kind) {
    case Gates::absent:
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
  Fenced q, k, v, g, beta, s0, errors;
  Sample(Rng& rng, const Shape& p, Gates kind)
      : shape(p),
        q(Fenced::normal(rng, p.length * p.key_dim)),
        k(Fenced::normal(rng, p.length * p.key_dim)),
        v(Fenced::normal(rng, p.length * p.value_dim)),
        g(kind == Gates::absent ? 0 : p.length),
        beta(Fenced::uniform(rng, p.length, 0, 2)),
        s0(Fenced::normal(rng, p.key_dim * p.value_dim)),
        errors(p.length * p.value_dim, NAN) {
    for (float& x : g) x = gate(rng, kind);
    for (int64_t t = 0; t < p.length; ++t) {
      if (t > 0 && rng.below(4) == 0)  // the same key again: the system inside the chunk is far from the identity
        std::copy_n(k.data() + (t - 1) * p.key_dim, p.key_dim, k.data() + t * p.key_dim);
      double squares = 1e-12;
      for (int64_t i = 0; i < p.key_dim; ++i) squares += std::pow(k[t * p.key_dim + i], 2);
      for (int64_t i = 0; i < p.key_dim; ++i) k[t * p.key_dim + i] /= static_cast<float>(std::sqrt(squares));
    }
  }
  kernels::DeltaTask task(int64_t begin, int64_t length) const {
    const int64_t K = shape.key_dim, V = shape.value_dim;
    return {.q = q.data() + begin * K,
            .k = k.data() + begin * K,
            .v = v.data() + begin * V,
            .g = g.size() ? g.data() + begin : nullptr,
            .beta = beta.data() + begin,
            .q_stride = K,
            .k_stride = K,
            .v_stride = V,
            .g_stride = 1,
            .beta_stride = 1,
            .length = length,
            .key_dim = K,
            .value_dim = V,
            .scale = static_cast<float>(kScale)};
  }
  kernels::DeltaTask task() const { return task(0, shape.length); }
  kernels::DeltaTask keeping() {
    kernels::DeltaTask t = task();
    t.errors = errors.data();
    return t;
  }
  Inputs doubles() const {
    return {q.doubles(), k.doubles(), v.doubles(), g.size() ? g.doubles() : Doubles{}, beta.doubles(), s0.doubles()};
  }
};

std::vector<Shape> shapes() {
  std::vector<std::pair<int64_t, int64_t>> dims{{1, 128}, {128, 1}, {3, 65}, {65, 3}, {17, 64}, {64, 17}, {32, 128}};
  for (int64_t d : {1, 3, 8, 16, 17, 32, 64, 65, 128}) dims.push_back({d, d});
  std::vector<Shape> all;
  for (auto [key_dim, value_dim] : dims)
    for (int64_t length : {0, 1, 2, 15, 16, 17, 35}) all.push_back({length, key_dim, value_dim});
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

TEST(DeltaKernel, BothFormsAgreeWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const Shape& p : shapes())
      for (Gates kind : kGates) {
        const Sample s(rng, p, kind);
        SCOPED_TRACE(describe(p, kind));
        const Outputs want = naive(p, s.doubles());
        // Outputs are sums of about key_dim terms of the size of q and S, of which the latter is at most s0's plus v's.
        const double s_size = 1 + magnitude(want.s) + magnitude(s.s0.doubles());
        const double y_size = kScale * s_size * (3 + std::sqrt(static_cast<double>(p.key_dim)));
        Fenced scratch(kernels::delta().scratch_floats(s.task()), NAN), y(p.length * p.value_dim, NAN), end = s.s0;
        kernels::delta().recurrent(s.task(), end.data(), end.data(), y.data(), p.value_dim, scratch.data());
        const double y_error = distance(y, want.y), s_error = distance(end, want.s);
        ASSERT_LE(y_error, 1e-6 * y_size);
        ASSERT_LE(s_error, 1e-6 * s_size);
        ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
        end = Fenced(s.s0.size(), NAN), y = Fenced(y.size(), NAN);
        kernels::delta().chunked(s.task(), s.s0.data(), end.data(), y.data(), p.value_dim, scratch.data());
        ASSERT_LE(distance(y, want.y), 3 * y_error + 2e-7 * y_size);
        ASSERT_LE(distance(end, want.s), 3 * s_error + 2e-7 * s_size);
        ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
      }
  });
}

// What the forward pass leaves: by how much a token's key recalled its value wrongly. Nothing else changes by that.
TEST(DeltaKernel, ErrorsAreThoseOfTheDefinition) {
  for_each_level([](IsaLevel) {
    Rng rng(6);
    for (const Shape& p : shapes())
      for (Gates kind : kGates) {
        Sample s(rng, p, kind);
        SCOPED_TRACE(describe(p, kind));
        const Doubles want = naive(p, s.doubles()).errors;
        Fenced scratch(kernels::delta().scratch_floats(s.task()), NAN), y(p.length * p.value_dim), plain(y.size());
        for (auto form : {kernels::delta().recurrent, kernels::delta().chunked}) {
          s.errors = Fenced(s.errors.size(), NAN);
          form(s.keeping(), s.s0.data(), nullptr, y.data(), p.value_dim, scratch.data());
          form(s.task(), s.s0.data(), nullptr, plain.data(), p.value_dim, scratch.data());
          const double size = 4 + magnitude(want) + magnitude(s.s0.doubles());
          ASSERT_LE(distance(s.errors, want), 3e-6 * size);
          ASSERT_TRUE(s.errors.intact() && scratch.intact());
          for (int64_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], plain[i]);
        }
      }
  });
}

TEST(DeltaKernel, SplitsWithCarriedStateGiveTheWhole) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (Gates kind : kGates)
      for (int round = 0; round < 6; ++round) {
        const Shape p{100, 24, 40};
        const Sample s(rng, p, kind);
        Fenced scratch(kernels::delta().scratch_floats(s.task()), NAN), whole(p.length * p.value_dim), y(whole.size());
        Fenced state = s.s0;
        kernels::delta().chunked(s.task(), s.s0.data(), nullptr, whole.data(), p.value_dim, scratch.data());
        for (int64_t begin = 0; begin < p.length;) {
          const int64_t length = std::min(p.length - begin, rng.below(40));
          const auto form = rng.below(2) ? kernels::delta().recurrent : kernels::delta().chunked;
          form(s.task(begin, length), state.data(), state.data(), y.data() + begin * p.value_dim, p.value_dim,
               scratch.data());
          begin += length;
        }
        ASSERT_LE(distance(y, whole.doubles()), 4e-6 * magnitude(whole.doubles())) << describe(p, kind);
      }
  });
}

TEST(DeltaKernel, AbsentStatesAreZerosAndNotWanted) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    const Shape p{21, 16, 20};
    const Sample s(rng, p, Gates::mild);
    Fenced scratch(kernels::delta().scratch_floats(s.task()), NAN), a(p.length * p.value_dim), b(a.size());
    for (auto form : {kernels::delta().recurrent, kernels::delta().chunked}) {
      Fenced state(s.s0.size());
      form(s.task(), state.data(), state.data(), a.data(), p.value_dim, scratch.data());
      form(s.task(), nullptr, nullptr, b.data(), p.value_dim, scratch.data());
      for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]);
    }
  });
}

// Leaves the errors.
void run(Sample& s, kernels::Delta::Forward form) {
  Fenced scratch(kernels::delta().scratch_floats(s.task()), NAN), y(s.v.size());
  s.errors = Fenced(s.errors.size(), NAN);
  form(s.keeping(), s.s0.data(), nullptr, y.data(), s.shape.value_dim, scratch.data());
}

// Those of q, k, v, g, beta and s0, of a sample with errors; added to `held`, or written where that is NaN.
std::vector<Fenced> gradients(Sample& s, const Fenced& dy, const float* ds_end, float held = 0) {
  Fenced scratch(kernels::delta().backward_scratch_floats(s.task()), NAN);
  std::vector<Fenced> d;
  for (const Fenced* x : {&s.q, &s.k, &s.v, &s.g, &s.beta}) d.emplace_back(x->size(), held);
  d.emplace_back(s.s0.size());
  const auto sum = [&](size_t i) { return kernels::Sum{d[i].data(), !std::isnan(held)}; };
  kernels::delta().backward(s.keeping(), s.s0.data(), dy.data(), s.shape.value_dim, ds_end,
                            {.q = sum(0), .k = sum(1), .v = sum(2), .g = sum(3), .beta = sum(4)}, d[5].data(),
                            scratch.data());
  EXPECT_TRUE(scratch.intact());
  for (const Fenced& x : d) EXPECT_TRUE(x.intact());
  return d;
}

void check_gradients(Rng& rng, const Shape& p, Gates kind, kernels::Delta::Forward form) {
  Sample s(rng, p, kind);
  SCOPED_TRACE(describe(p, kind));
  const Fenced dy = Fenced::normal(rng, p.length * p.value_dim), ds_end = Fenced::normal(rng, s.s0.size());
  run(s, form);
  const std::vector<Fenced> d = gradients(s, dy, ds_end.data());
  const Inputs in = s.doubles();
  // With one key channel the state shrinks by |1 - beta| each token, and the chunked form gets what is left as a
  // difference of larger numbers.
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
  expect_gradient("dg", along(&Inputs::g), in.g, d[3], tolerance, rng);
  expect_gradient("dbeta", along(&Inputs::beta), in.beta, d[4], tolerance, rng);
  expect_gradient("ds0", along(&Inputs::s0), in.s0, d[5], tolerance, rng);
}

TEST(DeltaKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(4);
    const auto forms = {kernels::delta().recurrent, kernels::delta().chunked};
    for (const Shape& p : shapes())
      if (p.key_dim * p.value_dim < 1200)
        check_gradients(rng, p, kGates[rng.below(5)], *(forms.begin() + rng.below(2)));
    for (Gates kind : kGates)
      for (auto form : forms) check_gradients(rng, {20, 65, 33}, kind, form);
  });
}

// The errors are what the gradients begin with: of others they are others.
TEST(DeltaKernel, GradientsAreOfTheErrors) {
  Rng rng(7);
  Sample s(rng, {19, 9, 12}, Gates::mild);
  const Fenced dy = Fenced::normal(rng, s.v.size());
  run(s, kernels::delta().chunked);
  const std::vector<Fenced> right = gradients(s, dy, nullptr);
  for (float& x : s.errors) x += 1;
  const std::vector<Fenced> wrong = gradients(s, dy, nullptr);
  for (size_t which : {0, 1, 3, 4})
    EXPECT_GE(distance(wrong[which], right[which].doubles()), 1e-2 * magnitude(right[which].doubles())) << which;
}

TEST(DeltaKernel, GradientsAddToWhatIsHeldAndAreWrittenElsewhere) {
  for_each_level([](IsaLevel) {
    Rng rng(5);
    for (const Shape& p : {Shape{19, 9, 12}, Shape{33, 16, 65}}) {
      Sample s(rng, p, Gates::mild);
      const Fenced dy = Fenced::normal(rng, s.v.size());
      run(s, kernels::delta().chunked);
      const std::vector<Fenced> once = gradients(s, dy, nullptr), more = gradients(s, dy, nullptr, 2),
                                written = gradients(s, dy, nullptr, NAN);
      for (size_t which = 0; which < 5; ++which)
        for (int64_t i = 0; i < once[which].size(); ++i) {
          ASSERT_NEAR(more[which][i], 2 + once[which][i], 3e-6 * (1 + std::abs(once[which][i]))) << which;
          ASSERT_EQ(written[which][i], once[which][i]) << which;
        }
    }
  });
}

}  // namespace sennit::delta_kernel_test
