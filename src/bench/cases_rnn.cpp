#include <memory>
#include <vector>

#include "bench/cases.h"
#include "nn/naive.h"
#include "ops/products.h"
#include "sequence/rnn.h"

// A layer of LSTM: 4 sequences of 512 tokens, 512 numbers in and out.
namespace sennit::bench {
namespace {

constexpr int64_t kSequences = 4, kSteps = 512, kCells = 512, kGates = 4, kCheckedSteps = 40;

struct Layer {
  Var x = Var::leaf(random_rows(kSequences * kSteps, kCells, "x")),
      w = Var::leaf(random_rows(kGates * kCells, kCells, "w", -0.05, 0.05)),
      r = Var::leaf(random_rows(kCells, kGates*kCells, "r", -0.05, 0.05)), y;

  void run(bool with_backward) {
    Recording on(with_backward);
    for (Var* v : {&x, &w, &r}) v->clear_grad();
    std::vector<Segment> segments;
    for (int64_t i = 0; i < kSequences; ++i) segments.push_back({i * kSteps, kSteps, 0, nullptr});
    const Context context;
    y = rnn(RnnCell::lstm, linear(x, w, {}), r, 1, {segments, &context}, 0);
    if (with_backward) backward_of_squares(y);
  }

  // The first tokens of the last sequence, gate by gate: i, f, z, o.
  double error() {
    run(false);
    Deviation d;
    std::vector<double> h(kCells), c(kCells), p(kGates * kCells);
    for (int64_t t = (kSequences - 1) * kSteps, end = t + kCheckedSteps; t < end; ++t) {
      for (int64_t g = 0; g < kGates * kCells; ++g) {
        p[g] = 0;
        for (int64_t j = 0; j < kCells; ++j)
          p[g] += double{x.value().data()[t * kCells + j]} * w.value().data()[g * kCells + j] +
                  h[j] * r.value().data()[j * kGates * kCells + g];
      }
      for (int64_t j = 0; j < kCells; ++j) {
        c[j] = naive::sigmoid(p[kCells + j]) * c[j] + naive::sigmoid(p[j]) * std::tanh(p[2 * kCells + j]);
        h[j] = naive::sigmoid(p[3 * kCells + j]) * std::tanh(c[j]);
        d.add(y.value().data()[t * kCells + j], h[j]);
      }
    }
    return d.relative();
  }
};

}  // namespace

void add_rnn(std::vector<Case>& cases) {
  const double forward = 2.0 * kSequences * kSteps * kCells * 2 * kGates * kCells;
  for (const bool with_backward : {false, true})
    cases.push_back({.name = with_backward ? "lstm 4x512, 512 wide, forward+backward" : "lstm 4x512, 512 wide, forward",
                     .flops = forward * (with_backward ? 3 : 1),
                     .tokens = kSequences * kSteps,
                     .peer = with_backward ? "lstm 1" : "lstm 0",
                     .prepare = [with_backward] {
                       const auto layer = std::make_shared<Layer>();
                       return Work{[=] { layer->run(with_backward); }, [=] { return layer->error(); }};
                     }});
}

}  // namespace sennit::bench
