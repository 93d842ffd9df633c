// What the papers on recurrent cells and state spaces promise: S4D (P034) and FlashRNN (P040).
#include <gtest/gtest.h>

#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/rnn.h"
#include "support/mixers.h"

namespace sennit::systems_recurrent_mixers_test {

// The same cells from plain operations, one token at a time. State rows: h and what else there is.
Var composed_cell(RnnCell cell, const Var& x, const Var& r, int64_t dim) {
  std::vector<Var> s(4, Var(Tensor::zeros({1, dim}))), ys;
  s[3] = Var(Tensor::full({1, dim}, -1e30f));
  for (int64_t t = 0; t < x.rows(); ++t) {
    const Var in = rows(x, t, 1), fed = matmul(s[0], r), p = in + fed;
    const auto gate = [&](int64_t i) { return columns(p, i * dim, dim); };
    if (cell == RnnCell::elman) s[0] = tanh(p);
    if (cell == RnnCell::lstm) {
      s[1] = sigmoid(gate(1)) * s[1] + sigmoid(gate(0)) * tanh(gate(2));
      s[0] = sigmoid(gate(3)) * tanh(s[1]);
    }
    if (cell == RnnCell::gru) {
      const Var n = tanh(columns(in, 2 * dim, dim) + sigmoid(gate(0)) * columns(fed, 2 * dim, dim)),
                z = sigmoid(gate(1));
      s[0] = n - z * n + z * s[0];
    }
    if (cell == RnnCell::slstm) {
      const Var a = log_sigmoid(gate(1)) + s[3], m = a + relu(gate(0) - a), keep = exp(a - m), open = exp(gate(0) - m);
      s[1] = keep * s[1] + open * tanh(gate(2));
      s[2] = keep * s[2] + open;
      s[3] = m;
      s[0] = sigmoid(gate(3)) * s[1] * exp(scale(log(s[2]), -1));
    }
    ys.push_back(s[0]);
  }
  return concat_rows(ys);
}

TEST(SystemsP040, TheKernelIsTheCellFromPlainOperations) {
  constexpr int64_t kDim = 20, kRows = 50;
  for (const RnnCell cell : {RnnCell::elman, RnnCell::lstm, RnnCell::gru, RnnCell::slstm}) {
    const int64_t gates = kernels::rnn_gates(cell);
    Tensor r = normal_rows(kDim, gates * kDim, 2);
    for (float& w : r.span()) w *= 0.15f;
    Var x1 = Var::leaf(normal_rows(kRows, gates * kDim, 1)), r1 = Var::leaf(r), x2 = Var::leaf(x1.value().clone()),
        r2 = Var::leaf(r.clone());
    const Context context;
    const Segment whole[] = {{0, kRows, 0, nullptr}};
    const Var fused = rnn(cell, x1, r1, 1, {whole, &context}, 0), plain = composed_cell(cell, x2, r2, kDim);
    EXPECT_LE(most_apart(fused.value(), plain.value()), 1e-5) << static_cast<int>(cell);
    const Tensor d = normal_rows(kRows, kDim, 3);
    backward(fused, d.clone()), backward(plain, d.clone());
    EXPECT_LE(most_apart(x1.grad(), x2.grad()), 1e-4) << static_cast<int>(cell);
    EXPECT_LE(most_apart(r1.grad(), r2.grad()), 1e-4) << static_cast<int>(cell);
  }
}

// Heads are the blocks of a block-diagonal feedback matrix.
TEST(SystemsP040, HeadsAreOneCellWithABlockDiagonalMatrix) {
  constexpr int64_t kDim = 6;
  NoGrad off;
  const Context context;
  const Segment whole[] = {{0, 40, 0, nullptr}};
  const Tensor x = normal_rows(40, 2 * kDim, 4), r = normal_rows(2 * kDim, kDim, 5);
  Tensor dense = Tensor::zeros({2 * kDim, 2 * kDim});
  for (int64_t i = 0; i < 2 * kDim; ++i)
    for (int64_t j = 0; j < kDim; ++j) dense.data()[i * 2 * kDim + i / kDim * kDim + j] = 0.2f * r.data()[i * kDim + j];
  Tensor blocks = r.clone();
  for (float& w : blocks.span()) w *= 0.2f;
  const Tensor a = rnn(RnnCell::elman, Var(x), Var(blocks), 2, {whole, &context}, 0).value();
  const Tensor b = rnn(RnnCell::elman, Var(x), Var(dense), 1, {whole, &context}, 0).value();
  EXPECT_LE(most_apart(a, b), 1e-5);
}

TEST(SystemsP034, TheRecurrenceIsTheConvolution) {
  NoGrad off;
  for (const char* start : {"lin", "inv"}) {
    auto mixer = make_mixer({{"name", "s4d"}, {"modes", 32}, {"start", start}}, 8);
    const Tensor x = normal_rows(1024, 8, 6);
    const auto m = mixer->implicit(Var(x), {});
    Tensor core = Tensor::zeros({1024, 8});
    for (int64_t c = 0; c < 8; ++c)
      for (int64_t i = 0; i < 1024; ++i)
        for (int64_t j = 0; j <= i; ++j)
          core.data()[i * 8 + c] += m->weights.data()[(c * 1024 + i) * 1024 + j] * x.data()[j * 8 + c];
    EXPECT_LE(most_apart(run_alone(*mixer, x), mixer->output(Var(x), Var(core), {}).value()), 1e-4) << start;
  }
}

}  // namespace sennit::systems_recurrent_mixers_test
