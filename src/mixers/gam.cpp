// Gated Associative Memory: A Parallel O(N) Architecture for Efficient Sequence Modeling (Acharya, arXiv:2509.00605),
// equations 2 to 6:
//   y_t = sigmoid(a_t) * conv(x)_t + sigmoid(b_t) * softmax(x_t M^T) M,   a, b = W_g x + b_g
// M [slots, d] is learned and the same for every sequence: what a token hears of others comes by the convolution alone,
// width - 1 tokens back.
#include "mixers/mixer.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Gam : Mixer {
  struct Options {
    int64_t slots = 64, conv = 3;
    Fields fields() {
      return {{"slots", &slots, "learned rows of the memory; 0: the convolution alone", {.min = 0, .max = 1e6}},
              {"conv", &conv, "width of the convolution", {.min = 2, .max = 8}}};
    }
  };
  static Info info() {
    return {.title = "Gated associative memory",
            .paper = "arXiv:2509.00605",
            .equation = "y_t = sigmoid(a_t) conv(x)_t + sigmoid(b_t) softmax(x_t M^T) M",
            .cost = "O(n d (slots + conv))",
            .settings = {{"convolution alone", R"({"slots": 0, "conv": 4})"}}};
  }
  Gam(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    gates = Linear(width, (o.slots ? 2 : 1) * width, rng.fork("gates"), {.bias = true});
    const double bound = 1 / std::sqrt(static_cast<double>(o.conv));
    conv.init(uniform_init({width, o.conv}, -bound, bound, rng.fork("conv")));
    shift.init(Tensor::zeros({width}));
    conv.decays = shift.decays = false;
    if (o.slots) bank.init(normal_init({o.slots, width}, 1 / std::sqrt(static_cast<double>(width)), rng.fork("bank")));
  }
  void visit(const ParameterVisitor& p) override {
    p("gates", gates);
    p("conv", conv);
    p("shift", shift);
    p("bank", bank);
  }
  StateSpec state_spec() const override { return {{"x", {options.conv - 1, width}}}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Gam>("gam", batch);
    return output(x, short_conv(x, conv, {}, batch, 0), *batch.context);
  }
  // Gates and memory are a token's own business.
  Var output(const Var& x, const Var& core, const Context& c) override {
    const Var g = sigmoid(gates(x, c)), local = add_row(core, shift);
    if (!options.slots) return g * local;
    const Var weights = softmax(matmul(x, bank, {.transpose_b = true, .precision = c.precision}));
    const Var global = matmul(weights, bank, {.precision = c.precision});
    return columns(g, 0, width) * local + columns(g, width, width) * global;
  }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    const int64_t n = x.rows(), taps = options.conv;
    ImplicitMatrix m{Tensor::zeros({width, n, n}), x.value()};
    for (int64_t c = 0; c < width; ++c)
      for (int64_t t = 0; t < n; ++t)
        for (int64_t j = std::max<int64_t>(0, t - taps + 1); j <= t; ++j)
          m.weights.data()[(c * n + t) * n + j] = conv.value().data()[c * taps + taps - 1 - (t - j)];
    return m;
  }
  int64_t flops(int64_t n) const override {
    return n * width * (2 * gates.out() + 2 * options.conv + 4 * options.slots + (options.slots ? 5 : 1)) +
           n * gates.out();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix g = naive::linear(run.x, run.w, "gates");
    const naive::Matrix local = naive::plain_conv(run.x, run.w.at("conv"), run.state["x"]);
    naive::Matrix y(run.x.rows, width);
    for (int64_t t = 0; t < y.rows; ++t) {
      std::vector<double> weights(static_cast<size_t>(options.slots));
      for (int64_t m = 0; m < options.slots; ++m)
        for (int64_t c = 0; c < width; ++c) weights[m] += run.x(t, c) * run.w.at("bank")(m, c);
      naive::softmax(weights);
      for (int64_t c = 0; c < width; ++c) {
        double global = 0;
        for (int64_t m = 0; m < options.slots; ++m) global += weights[m] * run.w.at("bank")(m, c);
        y(t, c) = naive::sigmoid(g(t, c)) * (local(t, c) + run.w.at("shift").a[c]) +
                  (options.slots ? naive::sigmoid(g(t, width + c)) * global : 0);
      }
    }
    return y;
  }

  Options options;
  int64_t width;
  Linear gates;
  Parameter conv, shift, bank;
};

}  // namespace

void register_gam(Registry<Mixer>& r) {
  r.add<Gam>("gam");
}

}  // namespace sennit::mixers
