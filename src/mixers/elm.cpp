// The ELM Neuron: an Efficient and Expressive Cortical Neuron Model Can Solve Long-Horizon Tasks (Spieler et al.,
// arXiv:2306.16922), equations 1 to 4:
//   s_t = a s_{t-1} + b(w * x_t)                      synapses w >= 0, summed by branches
//   m_t = k m_{t-1} + (1 - l) tanh(MLP([s_t, k m_{t-1}])),   k = exp(-1 / tau),  l = exp(-lambda / tau),   y_t = W_o
//   m_t
// The memories' times tau run evenly in their logarithm from 1 to `longest` tokens and are learned between 1 and that.
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"
#include "sequence/rnn.h"

namespace sennit::mixers {
namespace {

struct Elm : Mixer {
  struct Options {
    int64_t memories = 0, branches = 0;
    double synapse = 5, longest = 1000, lambda = 5;
    Fields fields() {
      return {{"memories", &memories, "memories; 0: d_model", {.min = 0, .max = 65536}},
              {"branches", &branches, "branches, a divisor of d_model; 0: one a channel", {.min = 0, .max = 65536}},
              {"synapse", &synapse, "a synapse's time, in tokens", {.min = 0.01, .max = 1e6}},
              {"longest", &longest, "the longest memory's time, in tokens", {.min = 1.01, .max = 1e9}},
              {"lambda", &lambda, "how much faster a memory fills than it fades", {.min = 1e-3, .max = 1e3}}};
    }
  };
  static Info info() {
    return {.title = "Expressive leaky memory neuron",
            .paper = "arXiv:2306.16922",
            .equation = "m_t = k m_{t-1} + (1 - l) tanh(MLP([s_t, k m_{t-1}])), s_t = a s_{t-1} + w x_t by branches",
            .cost = "O(n memories (memories + branches))",
            .settings = {{"branches", R"({"branches": 8, "memories": 12, "longest": 50})"}}};
  }
  Elm(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    if (!options.memories) options.memories = width;
    if (!options.branches) options.branches = width;
    head_dim("elm", width, options.branches);
    const int64_t m = options.memories;
    const double bound = 1 / std::sqrt(static_cast<double>(m));
    synapses.init(Tensor::full({width}, 0));  // softplus of them is w
    hidden = Linear(options.branches, m, rng.fork("hidden"), {.bias = true});
    recur.init(uniform_init({m, m}, -bound, bound, rng.fork("recur")));
    propose.init(uniform_init({m, m}, -bound, bound, rng.fork("propose")));
    shift.init(Tensor::zeros({m}));
    Tensor at({m});
    for (int64_t i = 0; i < m; ++i) {
      const double tau = std::pow(options.longest, (static_cast<double>(i) + 0.5) / static_cast<double>(m));
      const double share = (tau - 1) / (options.longest - 1);
      at.data()[i] = static_cast<float>(std::log(share / (1 - share)));
    }
    times.init(at);
    for (Parameter* p : {&synapses, &shift, &times}) p->decays = false;
    out = Linear(m, width, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    p("hidden", hidden);
    p("out", out);
    for (auto [name, x] : {std::pair<const char*, Parameter*>{"synapses", &synapses},
                           {"recur", &recur},
                           {"propose", &propose},
                           {"shift", &shift},
                           {"times", &times}})
      p(name, *x);
  }
  StateSpec state_spec() const override { return {{"s", {1, options.branches}}, {"m", {1, 1, options.memories}}}; }
  double keep_synapse() const { return std::exp(-1 / options.synapse); }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Elm>("elm", batch);
    const Context& c = *batch.context;
    const int64_t n = x.rows(), m = options.memories;
    const Var traces =
        diagonal_scan(sum_groups(multiply_row(x, softplus(synapses)), options.branches),
                      Var(Tensor::full({n, options.branches}, static_cast<float>(-1 / options.synapse))), batch, 0);
    // -1 / tau, and by it k and 1 - l
    const Var tau = affine(sigmoid(times), static_cast<float>(options.longest - 1), 1),
              rate = scale(exp(scale(log(tau), -1)), -1);
    const Var keep = exp(rate), fill = affine(exp(scale(rate, static_cast<float>(options.lambda))), -1, 1);
    const Var zeros(Tensor::zeros({n, m}));
    const Var gates[] = {hidden(traces, c), add_row(zeros, shift), add_row(zeros, keep), add_row(zeros, fill)};
    const Var unfed(Tensor::zeros({m, 2 * m})),
        feedback[] = {multiply_groups(recur, reshape(keep, {m, 1})), propose, unfed};
    return out(staged_rnn(StagedCell::elm, concat_columns(gates), concat_columns(feedback), 1, 1, batch, 1), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t m = options.memories, b = options.branches;
    return n * (2 * width + 4 * b + 2 * m * (b + width) + 4 * m * (2 * m + 8) + 3 * m) + 13 * m + m * m + 3 * width;
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t m = options.memories, b = options.branches;
    naive::Matrix &s = run.state["s"], &mem = run.state["m"];
    if (!s.rows) s = naive::Matrix(1, b), mem = naive::Matrix(1, m);
    naive::Matrix y(run.x.rows, m);
    const naive::Matrix &w1 = run.w.at("hidden.weight"), &r1 = run.w.at("recur"), &r2 = run.w.at("propose");
    for (int64_t t = 0; t < run.x.rows; ++t) {
      for (int64_t i = 0; i < b; ++i) s(0, i) *= keep_synapse();
      for (int64_t c = 0; c < width; ++c)
        s(0, c * b / width) += naive::softplus(run.w.at("synapses").a[c]) * run.x(t, c);
      std::vector<double> kept(m), layer(m);
      for (int64_t i = 0; i < m; ++i) kept[i] = std::exp(-1 / tau(run.w, i)) * mem(0, i);
      for (int64_t i = 0; i < m; ++i) {
        double p = run.w.at("hidden.bias").a[i];
        for (int64_t j = 0; j < b; ++j) p += w1(i, j) * s(0, j);
        for (int64_t j = 0; j < m; ++j) p += kept[j] * r1(j, i);
        layer[i] = std::fmax(p, 0);
      }
      for (int64_t i = 0; i < m; ++i) {
        double p = run.w.at("shift").a[i];
        for (int64_t j = 0; j < m; ++j) p += layer[j] * r2(j, i);
        y(t, i) = mem(0, i) = kept[i] + (1 - std::exp(-options.lambda / tau(run.w, i))) * std::tanh(p);
      }
    }
    return naive::linear(y, run.w, "out");
  }
  double tau(const naive::Weights& w, int64_t i) const {
    return 1 + (options.longest - 1) * naive::sigmoid(w.at("times").a[i]);
  }

  Options options;
  int64_t width;
  Linear hidden, out;
  Parameter synapses, recur, propose, shift, times;
};

}  // namespace

void register_elm(Registry<Mixer>& r) {
  r.add<Elm>("elm");
}

}  // namespace sennit::mixers
