// Attention Is Not All You Need Anymore (Chen, arXiv:2308.07661): in the place of attention, a causal sum with learned
// weights of lags, times an adjustment by the token itself,
//   e_t = (1 / sqrt(t)) sum_{i <= t} x_i W_{t-i},   y_t = (A x_t + b) * e_t,   t counted from 1, lags under `length`
// W_l is a matrix (the super high-performance Extractor), or a vector, a number a head, or 1 times a map V of values
// that is for all lags and may be left out. Between the classes that the paper orders by cost, the forms chosen here
// are SHE: matrices; HE: vectors and V; WE: vectors; ME: numbers. A map W_o after all of it is the custom of this
// house.
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/lag_products.h"
#include "sequence/long_conv.h"

namespace sennit::mixers {
namespace {

struct Extractor : Mixer {
  struct Options {
    std::string lags = "vector";
    int64_t heads = 4, length = 1024;
    bool values = true, output = true;
    Fields fields() {
      return {{"lags",
               &lags,
               "weights of a lag: a matrix, one a channel, one a head, or none",
               {.choices = {"matrix", "vector", "scalar", "none"}}},
              {"heads", &heads, "groups of channels that share scalar weights", {.min = 1, .max = 65536}},
              {"length", &length, "lags: how far back a token reads", {.min = 1, .max = 1 << 24}},
              {"values", &values, "map the rows that are summed; matrices of lags do that by themselves"},
              {"output", &output, "map the result"}};
    }
  };
  static Info info() {
    return {.title = "Extractor",
            .paper = "arXiv:2308.07661",
            .equation = "y_t = (A x_t + b) (1 / sqrt t) sum_i w_{t-i} V x_i",
            .cost = "O(n log^2 n d)",
            .settings = {{"scalar lags", R"({"lags": "scalar", "length": 90})"},
                         {"mean", R"({"lags": "none", "length": 150})"},
                         {"super high-performance Extractor", R"({"lags": "matrix", "output": false, "length": 70})"},
                         {"higher-performance Extractor", R"({"output": false, "length": 150})"},
                         {"worthwhile Extractor", R"({"values": false, "output": false, "length": 150})"},
                         {"minimalist Extractor",
                          R"({"lags": "scalar", "heads": 1, "values": false, "output": false, "length": 150})"}}};
  }
  Extractor(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    if (o.lags == "vector") options.heads = width;
    if (o.lags == "none" || matrices()) options.heads = 1;
    head_dim("extractor", width, options.heads);
    if (has_values()) v = Linear(width, width, rng.fork("v"));
    adjust = Linear(width, width, rng.fork("adjust"), {.bias = true, .scale = o.output ? 1 : d.out_scale});
    if (o.output) out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    const double deviation = matrices() ? 1 / std::sqrt(static_cast<double>(width)) : 1;
    if (o.lags != "none")
      weights.init(normal_init({o.length * (matrices() ? width : 1), matrices() ? width : options.heads}, deviation,
                               rng.fork("weights")));
    else
      ones = Var(Tensor::full({o.length, 1}, 1));
  }
  bool matrices() const { return options.lags == "matrix"; }
  bool has_values() const { return options.values && !matrices(); }
  void visit(const ParameterVisitor& p) override {
    if (has_values()) p("v", v);
    p("adjust", adjust);
    if (options.output) p("out", out);
    p("weights", weights);
  }
  StateSpec state_spec() const override { return {long_conv_state("v", options.length, width)}; }

  Var filter(int64_t taps) const {
    const Var w = rows(options.lags == "none" ? ones : weights.var, 0, taps);
    return repeat_groups(w, options.heads, width / options.heads);
  }
  // 1 / sqrt(t) [N, 1]
  static Var shares(std::span<const Segment> segments, int64_t n) {
    Tensor share({n, 1});
    for (const Segment& s : segments)
      for (int64_t t = 0; t < s.length; ++t)
        share.data()[s.begin + t] = static_cast<float>(1 / std::sqrt(static_cast<double>(s.position + t + 1)));
    return Var(share);
  }
  Var valued(const Var& x, const Context& c) { return has_values() ? v(x, c) : x; }
  Var summed(const Var& x, const Batch& batch) {
    if (matrices()) return lag_products(x, weights, batch, 0);
    int64_t longest = 1;
    for (const Segment& s : batch.segments) longest = std::max(longest, s.position + s.length);
    return long_conv(valued(x, *batch.context), filter(std::min(options.length, longest)), batch, 0, options.length);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Extractor>("extractor", batch);
    return output(x, multiply_groups(summed(x, batch), shares(batch.segments, x.rows())), *batch.context);
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    const Var y = adjust(x, c) * core;
    return options.output ? out(y, c) : y;
  }
  int64_t flops(int64_t n) const override {
    const int64_t maps = 1 + has_values() + options.output;
    return n * width * (2 * maps * width + 2) + (matrices() ? lag_products_flops(n, options.length, width, width)
                                                            : long_conv_flops(n, std::min(n, options.length), width));
  }

  // sum_l x_{t-l} W_l, with what the state keeps of x before.
  naive::Matrix naive_products(const naive::Matrix& w, const naive::Matrix& x, naive::Matrix& state) const {
    const naive::Matrix all = naive::with_kept(state, x, options.length);
    naive::Matrix y(x.rows, width);
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t l = 0; l < std::min(options.length, all.rows - x.rows + t + 1); ++l)
        for (int64_t i = 0; i < width; ++i)
          for (int64_t c = 0; c < width; ++c) y(t, c) += all(all.rows - x.rows + t - l, i) * w(l * width + i, c);
    return y;
  }
  naive::Matrix naive_summed(NaiveRun& run) const {
    if (matrices()) return naive_products(run.w.at("weights"), run.x, run.state["v"]);
    naive::Matrix h(options.length, width);
    for (int64_t l = 0; l < h.rows; ++l)
      for (int64_t c = 0; c < width; ++c)
        h(l, c) = options.lags == "none" ? 1 : run.w.at("weights")(l, c * options.heads / width);
    return naive::long_conv(has_values() ? naive::linear(run.x, run.w, "v") : run.x, h, run.state["v"]);
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix a = naive::linear(run.x, run.w, "adjust");
    naive::Matrix y = naive_summed(run);
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t c = 0; c < width; ++c) y(t, c) *= a(t, c) / std::sqrt(static_cast<double>(run.position + t + 1));
    return options.output ? naive::linear(y, run.w, "out") : y;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    if (matrices()) return std::nullopt;
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), valued(x, c).value()};
    const Tensor w = options.lags == "none" ? ones.value() : weights.value();
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = std::max<int64_t>(0, i - options.length + 1); j <= i; ++j)
          m.weights.data()[(h * n + i) * n + j] =
              w.data()[(i - j) * options.heads + h] / std::sqrt(static_cast<float>(i + 1));
    return m;
  }

  Options options;
  int64_t width;
  Linear v, adjust, out;
  Parameter weights;
  Var ones;
};

}  // namespace

void register_extractor(Registry<Mixer>& r) {
  r.add<Extractor>("extractor");
}

}  // namespace sennit::mixers
