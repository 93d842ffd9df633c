#include <gtest/gtest.h>

#include <cmath>

#include "sequence/rnn.h"
#include "support/cell_kernels.h"

namespace sennit::staged_rnn_kernel_test {

using Doubles = std::vector<double>;

constexpr StagedCell kCells[] = {StagedCell::lem, StagedCell::cfc, StagedCell::elm};
constexpr double kLimit = 0.7;

// p_g = x_g + v R_g of one token and channel; R_g are columns g dim, ..., (g + 1) dim - 1 of r [dim, 4 dim].
double fed(const CellInputs& in, int64_t dim, int64_t t, int64_t gate, int64_t c, const Doubles& v) {
  double p = in.x[(4 * t + gate) * dim + c];
  for (int64_t j = 0; j < dim; ++j) p += v[j] * in.r[(4 * j + gate) * dim + c];
  return p;
}

// Outputs, then the last state.
Doubles naive(StagedCell cell, int64_t length, int64_t dim, const CellInputs& in) {
  Doubles y, h(in.s.begin(), in.s.begin() + dim), z(in.s.begin() + dim, in.s.end()), m(dim);
  for (int64_t t = 0; t < length; ++t) {
    const Doubles old = h;
    for (int64_t c = 0; c < dim; ++c) {
      if (cell == StagedCell::lem) {
        const double open = kLimit * sigmoid_of(fed(in, dim, t, 1, c, old));
        m[c] = z[c] = (1 - open) * z[c] + open * std::tanh(fed(in, dim, t, 2, c, old));
      }
      if (cell == StagedCell::cfc) m[c] = std::tanh(fed(in, dim, t, 0, c, old));
      if (cell == StagedCell::elm) m[c] = std::fmax(0, fed(in, dim, t, 0, c, old));
    }
    for (int64_t c = 0; c < dim; ++c) {
      if (cell == StagedCell::lem) {
        const double open = kLimit * sigmoid_of(fed(in, dim, t, 0, c, old));
        h[c] = (1 - open) * old[c] + open * std::tanh(fed(in, dim, t, 3, c, m));
      }
      if (cell == StagedCell::cfc) {
        const double s = sigmoid_of(-kLimit * fed(in, dim, t, 1, c, m));
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
  CellKind kind() const { return cell_kind(cell, static_cast<float>(kLimit)); }
  // The definition never reads what is not fed: its numbers may be anything, and their gradient stays 0.
  CellInputs inputs() const {
    CellInputs in{x.doubles(), r.doubles(), s.doubles()};
    for (double& w : in.r) w = std::isnan(w) ? 0.25 : w;
    return in;
  }
  Doubles naive(const CellInputs& in) const { return staged_rnn_kernel_test::naive(cell, length, dim, in); }
};

TEST(StagedRnnKernel, AgreesWithDouble) {
  for_each_level([](IsaLevel) {
    expect_cells_agree_with_double<Sample>(kCells, [](double want, bool) { return 2e-5 * (1 + std::fabs(want)); });
  });
}

TEST(StagedRnnKernel, ChannelsStandAlone) {
  for_each_level([](IsaLevel) { expect_channels_stand_alone<Sample>(kCells); });
}

TEST(StagedRnnKernel, GradientsAreThoseOfCentralDifferences) {
  for_each_level([](IsaLevel) { expect_cell_gradients<Sample>(kCells); });
}

}  // namespace sennit::staged_rnn_kernel_test
