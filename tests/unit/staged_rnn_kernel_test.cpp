#include <gtest/gtest.h>

#include <cmath>

#include "kernels/staged_rnn.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::staged_rnn_kernel_test {

using Doubles = std::vector<double>;
using kernels::StagedCell;

constexpr StagedCell kCells[] = {StagedCell::lem, StagedCell::cfc, StagedCell::elm};
constexpr double kLimit = 0.7;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

struct Inputs {
  Doubles x, r, s;
};

// p_g = x_g + v R_g of one token and channel; R_g are columns g dim, ..., (g + 1) dim - 1 of r [dim, 4 dim].
double fed(const Inputs& in, int64_t dim, int64_t t, int64_t gate, int64_t c, const Doubles& v) {
  double p = in.x[(4 * t + gate) * dim + c];
  for (int64_t j = 0; j < dim; ++j) p += v[j] * in.r[(4 * j + gate) * dim + c];
  return p;
}

// Outputs, then the last state.
Doubles naive(StagedCell cell, int64_t length, int64_t dim, const Inputs& in) {
  Doubles y, h(in.s.begin(), in.s.begin() + dim), z(in.s.begin() + dim, in.s.end()), m(dim);
  for (int64_t t = 0; t < length; ++t) {
    const Doubles old = h;
    for (int64_t c = 0; c < dim; ++c) {
      if (cell == StagedCell::lem) {
        const double open = kLimit * sigmoid(fed(in, dim, t, 1, c, old));
        m[c] = z[c] = (1 - open) * z[c] + open * std::tanh(fed(in, dim, t, 2, c, old));
      }
      if (cell == StagedCell::cfc) m[c] = std::tanh(fed(in, dim, t, 0, c, old));
      if (cell == StagedCell::elm) m[c] = std::fmax(0, fed(in, dim, t, 0, c, old));
    }
    for (int64_t c = 0; c < dim; ++c) {
      if (cell == StagedCell::lem) {
        const double open = kLimit * sigmoid(fed(in, dim, t, 0, c, old));
        h[c] = (1 - open) * old[c] + open * std::tanh(fed(in, dim, t, 3, c, m));
      }
      if (cell == StagedCell::cfc) {
        const double s = sigmoid(-kLimit * fed(in, dim, t, 1, c, m));
        h[c] = s * std::tanh(fed(in, dim, t, 2, c, m)) + (1 - s) * std::tanh(fed(in, dim, t, 3, c, m));
      }
      if (cell == StagedCell::elm)
        h[c] = in.x[(4 * t + 2) * dim + c] * old[c] + in.x[(4 * t + 3) * dim + c] * std::tanh(fed(in, dim, t, 1, c, m));
    }
    y.insert(y.end(), h.begin(), h.end());
  }
  y.insert(y.end(), h.begin(), h.end());
  y.insert(y.end(), z.begin(), z.end());
  return y;
}

struct Sample {
  StagedCell cell;
  int64_t length, dim;
  Fenced x, r, s;
  Sample(Rng& rng, StagedCell kind, int64_t n, int64_t d)
      : cell(kind),
        length(n),
        dim(d),
        x(Fenced::normal(rng, n * kernels::kStagedGates * d, 0.7)),
        r(Fenced::normal(rng, kernels::kStagedGates * d * d, 0.5 / std::sqrt(static_cast<double>(d)))),
        s(Fenced::normal(rng, kernels::staged_states(kind) * d)) {
    // Columns of gates that are not fed may hold anything.
    const int64_t used = kernels::staged_first(kind) + kernels::staged_second(kind);
    for (int64_t j = 0; j < d; ++j)
      for (int64_t c = used * d; c < kernels::kStagedGates * d; ++c) r[j * kernels::kStagedGates * d + c] = NAN;
  }
  kernels::StagedRnnTask task() const {
    return {cell, static_cast<float>(kLimit), x.data(), r.data(), kernels::kStagedGates * dim, length, dim};
  }
  Inputs doubles() const { return {x.doubles(), r.doubles(), s.doubles()}; }
};

TEST(StagedRnnKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const StagedCell cell : kCells)
      for (const int64_t dim : {1, 3, 8, 16, 17, 40})
        for (const int64_t length : {0, 1, 2, 30}) {
          const Sample s(rng, cell, length, dim);
          Fenced y(length * dim, NAN), end = s.s, scratch(kernels::staged_rnn().scratch_floats(s.task()), NAN);
          kernels::staged_rnn().forward(s.task(), end.data(), end.data(), y.data(), dim, scratch.data());
          const Doubles want = naive(cell, length, dim, s.doubles());
          ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
          ASSERT_EQ(std::ssize(want), y.size() + end.size());
          for (int64_t i = 0; i < y.size() + end.size(); ++i)
            ASSERT_NEAR(i < y.size() ? y[i] : end[i - y.size()], want[static_cast<size_t>(i)],
                        2e-5 * (1 + std::fabs(want[static_cast<size_t>(i)])))
                << static_cast<int>(cell) << " dim " << dim << " at " << i << " of " << length;
        }
  });
}

TEST(StagedRnnKernel, AFreshStateIsWrittenOutAndGoesOnAsOne) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (const StagedCell cell : kCells) {
      const Sample s(rng, cell, 9, 11);
      Fenced a(99), b(99), first(s.s.size(), NAN), last(s.s.size()),
          scratch(kernels::staged_rnn().scratch_floats(s.task()));
      auto nothing = s.task();
      nothing.length = 0;
      kernels::staged_rnn().forward(nothing, nullptr, first.data(), a.data(), 11, scratch.data());
      kernels::staged_rnn().forward(s.task(), first.data(), last.data(), a.data(), 11, scratch.data());
      kernels::staged_rnn().forward(s.task(), nullptr, last.data(), b.data(), 11, scratch.data());
      for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << static_cast<int>(cell);
    }
  });
}

TEST(StagedRnnKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const StagedCell cell : kCells)
      for (const int64_t dim : {1, 16, 19})
        for (const int64_t length : {1, 2, 25}) {
          const Sample s(rng, cell, length, dim);
          const Fenced dy = Fenced::normal(rng, length * dim), d_end = Fenced::normal(rng, s.s.size());
          Fenced dx(s.x.size()), dr(s.r.size()), ds(s.s.size()),
              scratch(kernels::staged_rnn().backward_scratch_floats(s.task()), NAN);
          kernels::staged_rnn().backward(s.task(), s.s.data(), dy.data(), dim, d_end.data(), dx.data(), dr.data(),
                                         ds.data(), scratch.data());
          ASSERT_TRUE(scratch.intact());
          SCOPED_TRACE(testing::Message() << static_cast<int>(cell) << " dim " << dim << " length " << length);
          // The definition never reads what is not fed: its numbers may be anything, and their gradient stays 0.
          const auto known = [&] {
            Inputs in = s.doubles();
            for (double& w : in.r) w = std::isnan(w) ? 0.25 : w;
            return in;
          };
          const auto check = [&](const char* name, Doubles Inputs::*which, const Fenced& gradient) {
            const auto loss = [&](const Doubles& values) {
              Inputs in = known();
              in.*which = values;
              const Doubles y = naive(cell, length, dim, in);
              double sum = 0;
              for (int64_t i = 0; i < dy.size(); ++i) sum += y[static_cast<size_t>(i)] * dy[i];
              for (int64_t i = 0; i < d_end.size(); ++i) sum += y[static_cast<size_t>(dy.size() + i)] * d_end[i];
              return sum;
            };
            expect_gradient(name, loss, known().*which, gradient, 1e-4, rng);
          };
          check("x", &Inputs::x, dx), check("r", &Inputs::r, dr), check("s", &Inputs::s, ds);
        }
  });
}

}  // namespace sennit::staged_rnn_kernel_test
