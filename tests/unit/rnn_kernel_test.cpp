#include <gtest/gtest.h>

#include <cmath>

#include "kernels/rnn.h"
#include "support/buffers.h"
#include "support/gradients.h"
#include "support/levels.h"

namespace sennit::rnn_kernel_test {

using Doubles = std::vector<double>;
using kernels::RnnCell;

constexpr RnnCell kCells[] = {RnnCell::elman, RnnCell::lstm, RnnCell::gru, RnnCell::slstm};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

struct Inputs {
  Doubles x, r, s;
};

// Outputs, then the last state.
Doubles naive(RnnCell cell, int64_t length, int64_t dim, const Inputs& in) {
  const int64_t gates = kernels::rnn_gates(cell);
  Doubles y(length * dim), s = in.s;
  for (int64_t t = 0; t < length; ++t) {
    const Doubles before(s.begin(), s.begin() + dim);
    for (int64_t c = 0; c < dim; ++c) {
      double p[4] = {}, fed[4] = {};
      for (int64_t g = 0; g < gates; ++g) {
        for (int64_t j = 0; j < dim; ++j) fed[g] += before[j] * in.r[(j * gates + g) * dim + c];
        p[g] = in.x[(t * gates + g) * dim + c] + fed[g];
      }
      double& h = s[c];
      if (cell == RnnCell::elman) h = std::tanh(p[0]);
      if (cell == RnnCell::gru)
        h = (1 - sigmoid(p[1])) * std::tanh(p[2] - fed[2] + sigmoid(p[0]) * fed[2]) + sigmoid(p[1]) * h;
      if (cell == RnnCell::lstm) {
        s[dim + c] = sigmoid(p[1]) * s[dim + c] + sigmoid(p[0]) * std::tanh(p[2]);
        h = sigmoid(p[3]) * std::tanh(s[dim + c]);
      }
      if (cell == RnnCell::slstm) {
        double &sum = s[dim + c], &norm = s[2 * dim + c], &top = s[3 * dim + c];
        const double a = top + std::log(sigmoid(p[1])), m = std::fmax(a, p[0]);
        sum = std::exp(a - m) * sum + std::exp(p[0] - m) * std::tanh(p[2]);
        norm = std::exp(a - m) * norm + std::exp(p[0] - m);
        top = m;
        h = sigmoid(p[3]) * sum / norm;
      }
      y[t * dim + c] = h;
    }
  }
  y.insert(y.end(), s.begin(), s.end());
  return y;
}

struct Sample {
  RnnCell cell;
  int64_t length, dim;
  Fenced x, r, s;
  Sample(Rng& rng, RnnCell kind, int64_t n, int64_t d)
      : cell(kind),
        length(n),
        dim(d),
        x(Fenced::normal(rng, n * kernels::rnn_gates(kind) * d)),
        r(Fenced::normal(rng, kernels::rnn_gates(kind) * d * d, 0.5 / std::sqrt(static_cast<double>(d)))),
        s(Fenced::normal(rng, kernels::rnn_states(kind) * d)) {
    if (cell == RnnCell::slstm)
      for (int64_t c = 0; c < d; ++c) s[2 * d + c] = 1 + std::fabs(s[2 * d + c]);  // a normalizer
  }
  kernels::RnnTask task() const { return {cell, x.data(), r.data(), kernels::rnn_gates(cell) * dim, length, dim}; }
  Inputs doubles() const { return {x.doubles(), r.doubles(), s.doubles()}; }
};

TEST(RnnKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    Rng rng(1);
    for (const RnnCell cell : kCells)
      for (const int64_t dim : {1, 3, 8, 16, 17, 40})
        for (const int64_t length : {0, 1, 2, 30}) {
          const Sample s(rng, cell, length, dim);
          Fenced y(length * dim, NAN), end = s.s, scratch(kernels::rnn().scratch_floats(s.task()), NAN);
          kernels::rnn().forward(s.task(), end.data(), end.data(), y.data(), dim, scratch.data());
          const Doubles want = naive(cell, length, dim, s.doubles());
          ASSERT_TRUE(y.intact() && end.intact() && scratch.intact());
          for (int64_t i = 0; i < y.size(); ++i)
            ASSERT_NEAR(y[i], want[static_cast<size_t>(i)], 1e-5) << static_cast<int>(cell);
          for (int64_t i = 0; i < end.size(); ++i)
            ASSERT_NEAR(end[i], want[static_cast<size_t>(y.size() + i)], 2e-5) << static_cast<int>(cell);
        }
  });
}

TEST(RnnKernel, AFreshStateIsWrittenOutAndGoesOnAsOne) {
  for_each_level([](IsaLevel) {
    Rng rng(2);
    for (const RnnCell cell : kCells) {
      const Sample s(rng, cell, 9, 11);
      Fenced a(99), b(99), first(s.s.size(), NAN), last(s.s.size()), scratch(kernels::rnn().scratch_floats(s.task()));
      auto nothing = s.task();
      nothing.length = 0;
      kernels::rnn().forward(nothing, nullptr, first.data(), a.data(), 11, scratch.data());
      kernels::rnn().forward(s.task(), first.data(), last.data(), a.data(), 11, scratch.data());
      kernels::rnn().forward(s.task(), nullptr, last.data(), b.data(), 11, scratch.data());
      for (int64_t i = 0; i < a.size(); ++i) ASSERT_EQ(a[i], b[i]) << static_cast<int>(cell);
    }
  });
}

TEST(RnnKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) {
    Rng rng(3);
    for (const RnnCell cell : kCells)
      for (const int64_t dim : {1, 16, 19})
        for (const int64_t length : {1, 2, 25}) {
          const Sample s(rng, cell, length, dim);
          const Fenced dy = Fenced::normal(rng, length * dim), d_end = Fenced::normal(rng, s.s.size());
          Fenced dx(s.x.size()), dr(s.r.size()), ds(s.s.size()),
              scratch(kernels::rnn().backward_scratch_floats(s.task()), NAN);
          kernels::rnn().backward(s.task(), s.s.data(), dy.data(), dim, d_end.data(), dx.data(), dr.data(), ds.data(),
                                  scratch.data());
          ASSERT_TRUE(scratch.intact());
          SCOPED_TRACE(testing::Message() << static_cast<int>(cell) << " dim " << dim << " length " << length);
          const auto check = [&](const char* name, Doubles Inputs::*which, const Fenced& gradient) {
            const auto loss = [&](const Doubles& values) {
              Inputs in = s.doubles();
              in.*which = values;
              const Doubles y = naive(cell, length, dim, in);
              double sum = 0;
              for (int64_t i = 0; i < dy.size(); ++i) sum += y[static_cast<size_t>(i)] * dy[i];
              for (int64_t i = 0; i < d_end.size(); ++i) sum += y[static_cast<size_t>(dy.size() + i)] * d_end[i];
              return sum;
            };
            expect_gradient(name, loss, s.doubles().*which, gradient, 1e-4, rng);
          };
          check("x", &Inputs::x, dx), check("r", &Inputs::r, dr), check("s", &Inputs::s, ds);
        }
  });
}

}  // namespace sennit::rnn_kernel_test
