// What the paper on cells of two layers promises: long expressive memory (P238).
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

}  // namespace sennit::systems_staged_cells_test
