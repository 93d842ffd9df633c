#include <gtest/gtest.h>

#include <cmath>

#include "sequence/rnn.h"
#include "support/cell_kernels.h"

namespace sennit::rnn_kernel_test {

using Doubles = std::vector<double>;

constexpr RnnCell kCells[] = {RnnCell::elman, RnnCell::lstm, RnnCell::gru, RnnCell::slstm};

// Outputs, then the last state.
Doubles naive(RnnCell cell, int64_t length, int64_t dim, const CellInputs& in) {
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
        h = (1 - sigmoid_of(p[1])) * std::tanh(p[2] - fed[2] + sigmoid_of(p[0]) * fed[2]) + sigmoid_of(p[1]) * h;
      if (cell == RnnCell::lstm) {
        s[dim + c] = sigmoid_of(p[1]) * s[dim + c] + sigmoid_of(p[0]) * std::tanh(p[2]);
        h = sigmoid_of(p[3]) * std::tanh(s[dim + c]);
      }
      if (cell == RnnCell::slstm) {
        double &sum = s[dim + c], &norm = s[2 * dim + c], &top = s[3 * dim + c];
        const double a = top + std::log(sigmoid_of(p[1])), m = std::fmax(a, p[0]);
        sum = std::exp(a - m) * sum + std::exp(p[0] - m) * std::tanh(p[2]);
        norm = std::exp(a - m) * norm + std::exp(p[0] - m);
        top = m;
        h = sigmoid_of(p[3]) * sum / norm;
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
  CellKind kind() const { return cell_kind(cell); }
  CellInputs inputs() const { return {x.doubles(), r.doubles(), s.doubles()}; }
  Doubles naive(const CellInputs& in) const { return rnn_kernel_test::naive(cell, length, dim, in); }
};

TEST(RnnKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    expect_cells_agree_with_double<Sample>(kCells, [](double, bool of_state) { return of_state ? 2e-5 : 1e-5; });
  });
}

TEST(RnnKernel, ChannelsStandAlone) {
  for_each_level([](IsaLevel) { expect_channels_stand_alone<Sample>(kCells); });
}

TEST(RnnKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) { expect_cell_gradients<Sample>(kCells); });
}

}  // namespace sennit::rnn_kernel_test
