// What the papers on cells of two layers promise: long expressive memory (P238) and low-rank sparse closed-form cells
// (P263).
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/rnn.h"
#include "support/mixers.h"

namespace sennit::systems_staged_cells_test {

// The same cells from plain operations, one token at a time.
Var composed_cell(StagedCell cell, const Var& x, const Var& r, int64_t dim, float limit) {
  Var h(Tensor::zeros({1, dim})), z = h;
  std::vector<Var> ys;
  for (int64_t t = 0; t < x.rows(); ++t) {
    const auto gate = [&](int64_t g, const Var& fed) {
      return columns(rows(x, t, 1), g * dim, dim) + matmul(fed, columns(r, g * dim, dim));
    };
    if (cell == StagedCell::lem) {
      const Var step = scale(sigmoid(gate(0, h)), limit), open = scale(sigmoid(gate(1, h)), limit);
      z = z + open * (tanh(gate(2, h)) - z);
      h = h + step * (tanh(gate(3, z)) - h);
    }
    if (cell == StagedCell::cfc) {
      const Var m = tanh(gate(0, h)), s = sigmoid(scale(gate(1, m), -limit)), end = tanh(gate(3, m));
      h = end + s * (tanh(gate(2, m)) - end);
    }
    if (cell == StagedCell::elm) {
      const Var m = relu(gate(0, h)), in = rows(x, t, 1);
      h = columns(in, 2 * dim, dim) * h + columns(in, 3 * dim, dim) * tanh(gate(1, m));
    }
    ys.push_back(h);
  }
  return concat_rows(ys);
}

TEST(SystemsP238, TheKernelIsTheCellFromPlainOperations) {
  constexpr int64_t kDim = 20, kRows = 50;
  for (const StagedCell cell : {StagedCell::lem, StagedCell::cfc, StagedCell::elm}) {
    Tensor r = normal_rows(kDim, 4 * kDim, 2);
    for (float& w : r.span()) w *= 0.15f;
    Tensor in = normal_rows(kRows, 4 * kDim, 1);
    for (float& v : in.span()) v *= 0.5f;
    Var x1 = Var::leaf(in), r1 = Var::leaf(r), x2 = Var::leaf(in.clone()), r2 = Var::leaf(r.clone());
    const Context context;
    const Segment whole[] = {{0, kRows, 0, nullptr}};
    const Var fused = staged_rnn(cell, x1, r1, 1, 0.7f, {whole, &context}, 0),
              plain = composed_cell(cell, x2, r2, kDim, 0.7f);
    EXPECT_LE(most_apart(fused.value(), plain.value()), 1e-5) << static_cast<int>(cell);
    const Tensor d = normal_rows(kRows, kDim, 3);
    backward(fused, d.clone()), backward(plain, d.clone());
    EXPECT_LE(most_apart(x1.grad(), x2.grad()), 1e-5) << static_cast<int>(cell);
    EXPECT_LE(most_apart(r1.grad(), r2.grad()), 1e-5) << static_cast<int>(cell);
  }
}

TEST(SystemsP238, StatesStayWithinOne) {
  auto mixer = make_mixer("lem", 32);
  mixer->parameters([](const std::string&, Parameter& p) {
    for (float& w : p.var.value().span()) w *= 8;
    ++p.version;
  });
  SequenceState state;
  for (int piece = 0; piece < 10; ++piece) {
    Tensor x = normal_rows(1000, 32, static_cast<uint64_t>(piece));
    for (float& v : x.span()) v *= 10;
    run_alone(*mixer, x, &state);
    for (const float v : state.layer(0).get(0).value().span()) ASSERT_LE(std::fabs(v), 1);
  }
}

// The length of the gradient of what the last of a thousand tokens says with respect to the state before the first.
double reach(const Json& part) {
  auto mixer = make_mixer(part, 32);
  const Context context;
  SequenceState state;
  run_alone(*mixer, normal_rows(5, 32, 4), &state);
  const Var first = Var::leaf(state.layer(0).get(0).value().clone());
  state.layer(0).set(0, first);
  const Segment whole[] = {{0, 1000, 5, &state}};
  const Var y = mixer->forward(Var(normal_rows(1000, 32, 5)), {whole, &context});
  backward(sum(rows(y, 999, 1)));
  double square = 0;
  for (const float g : first.grad().span()) square += double{g} * g;
  return std::sqrt(square);
}
TEST(SystemsP238, GradientsOverAThousandStepsNeitherVanishNorExplode) {
  const double lem = reach({{"name", "lem"}, {"heads", 1}, {"limit", 0.01}}),
               plain = reach({{"name", "rnn"}, {"cell", "elman"}, {"heads", 1}});
  std::printf("gradient over 1000 steps: LEM %.2g, tanh cell %.2g\n", lem, plain);
  EXPECT_GE(lem, 1e-12);
  EXPECT_LE(lem, 1e3);
}

// The recurrence that a cell's h goes through first.
Tensor recurrence(Mixer& mixer, int64_t dim) {
  NoGrad off;
  // With the input's map 0 and tanh nearly linear, m of one step from h is h R.
  parameter_of(mixer, "in.weight").var.value().fill(0);
  parameter_of(mixer, "in.bias").var.value().fill(0);
  Tensor& heads = parameter_of(mixer, "heads").var.value();  // f = large: the end alone, which is m
  heads.fill(0);
  parameter_of(mixer, "shift").var.value().fill(0);
  for (int64_t c = 0; c < dim; ++c) parameter_of(mixer, "shift").var.value().data()[c] = 60;
  for (int64_t c = 0; c < dim; ++c) heads.data()[c * 3 * dim + 2 * dim + c] = 1;
  Tensor r({dim, dim});
  constexpr float kSmall = 1e-3f;
  for (int64_t j = 0; j < dim; ++j) {
    SequenceState state;
    Tensor h = Tensor::zeros({1, 1, dim});
    h.data()[j] = kSmall;
    state.layer(0).set(0, Var(h));
    run_alone(mixer, Tensor::zeros({1, dim}), &state);
    for (int64_t c = 0; c < dim; ++c) r.data()[j * dim + c] = state.layer(0).get(0).value().data()[c] / kSmall;
  }
  return r;
}
double spectral_norm(const Tensor& r) {
  const int64_t n = r.rows();
  std::vector<double> x(n, 1), y(n);
  double size = 0;
  for (int i = 0; i < 200; ++i) {
    std::fill(y.begin(), y.end(), 0);
    for (int64_t a = 0; a < n; ++a)
      for (int64_t b = 0; b < n; ++b) y[a] += r.data()[a * n + b] * x[b];
    std::fill(x.begin(), x.end(), 0);
    for (int64_t a = 0; a < n; ++a)
      for (int64_t b = 0; b < n; ++b) x[b] += r.data()[a * n + b] * y[a];
    size = 0;
    for (const double v : x) size += v * v;
    size = std::sqrt(size);
    for (double& v : x) v /= size;
  }
  return std::sqrt(size);
}

TEST(SystemsP263, NormsFallWithSparsityAndCountsWithRank) {
  constexpr int64_t kDim = 32;
  const auto norm = [&](int64_t rank, double sparsity) {
    double total = 0;
    for (uint64_t seed = 1; seed <= 5; ++seed) {
      auto mixer = make_mixer({{"name", "cfc"}, {"heads", 1}, {"rank", rank}, {"sparsity", sparsity}}, kDim, seed);
      total += spectral_norm(recurrence(*mixer, kDim)) / 5;
    }
    return total;
  };
  for (const int64_t rank : {0, 4}) {
    EXPECT_GT(norm(rank, 0), norm(rank, 0.5));
    EXPECT_GT(norm(rank, 0.5), norm(rank, 0.9));
  }
  const auto count = [&](int64_t rank) {
    return make_mixer({{"name", "cfc"}, {"heads", 1}, {"rank", rank}}, kDim)->parameter_count();
  };
  EXPECT_EQ(count(0) - count(4), kDim * kDim - 2 * kDim * 4);
}

TEST(SystemsP263, MaskedEntriesStayZero) {
  constexpr int64_t kDim = 16;
  auto mixer = make_mixer({{"name", "cfc"}, {"heads", 1}, {"rank", 3}, {"sparsity", 0.6}}, kDim);
  auto same = make_mixer({{"name", "cfc"}, {"heads", 1}, {"rank", 3}, {"sparsity", 0.6}}, kDim);
  const Context context;
  const Segment whole[] = {{0, 30, 0, nullptr}};
  for (int step = 0; step < 3; ++step) {
    mixer->parameters([](const std::string&, Parameter& p) { p.var.clear_grad(); });
    const Var y = mixer->forward(Var(normal_rows(30, kDim, 8)), {whole, &context});
    backward(sum(y * y));
    mixer->parameters([](const std::string&, Parameter& p) {
      for (int64_t i = 0; i < p.value().elements(); ++i) p.var.value().data()[i] -= 0.05f * p.var.grad().data()[i];
      ++p.version;
    });
  }
  const Tensor trained = recurrence(*mixer, kDim), fresh = recurrence(*same, kDim);
  int zeros = 0;
  for (int64_t i = 0; i < fresh.elements(); ++i) {
    zeros += fresh.data()[i] == 0;
    EXPECT_EQ(trained.data()[i] == 0, fresh.data()[i] == 0) << i;
  }
  EXPECT_NEAR(zeros / 256.0, 0.6, 0.1);
}

}  // namespace sennit::systems_staged_cells_test
