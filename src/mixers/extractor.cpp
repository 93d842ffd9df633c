// Attention Is Not All You Need Anymore (Chen, arXiv:2308.07661), the Extractors that need no matrix for each lag: a
// causal sum with learned weights of lags, times an adjustment by the token itself,
//   e_t = (1 / sqrt(t)) sum_{i <= t} w_{t-i} * (V x_i),   y_t = W_o ((A x_t + b) * e_t),   t counted from 1
// w_l is a vector (HE), a number a head (WE) or 1 (ME), for lags under `length`.
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/long_conv.h"

namespace sennit::mixers {
namespace {

struct Extractor : Mixer {
  struct Options {
    std::string lags = "vector";
    int64_t heads = 4, length = 1024;
    Fields fields() {
      return {{"lags",
               &lags,
               "weights of a lag: one a channel, one a head, or none",
               {.choices = {"vector", "scalar", "none"}}},
              {"heads", &heads, "groups of channels that share scalar weights", {.min = 1, .max = 65536}},
              {"length", &length, "lags: how far back a token reads", {.min = 1, .max = 1 << 24}}};
    }
  };
  static Info info() {
    return {.title = "Extractor",
            .paper = "arXiv:2308.07661",
            .equation = "y_t = (A x_t + b) (1 / sqrt t) sum_i w_{t-i} V x_i",
            .cost = "O(n log^2 n d)",
            .settings = {{"scalar lags", R"({"lags": "scalar", "length": 90})"},
                         {"minimal", R"({"lags": "none", "length": 150})"}}};
  }
  Extractor(const Dims& d, const Options& o, Rng rng) : options(o), width(d.d_model) {
    if (o.lags == "vector") options.heads = width;
    if (o.lags == "none") options.heads = 1;
    head_dim("extractor", width, options.heads);
    v = Linear(width, width, rng.fork("v"));
    adjust = Linear(width, width, rng.fork("adjust"), {.bias = true});
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    if (o.lags != "none")
      weights.init(normal_init({o.length, options.heads}, 1, rng.fork("weights")));
    else
      ones = Var(Tensor::full({o.length, 1}, 1));
  }
  void visit(const ParameterVisitor& p) override {
    p("v", v);
    p("adjust", adjust);
    p("out", out);
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
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Extractor>("extractor", batch);
    int64_t longest = 1;
    for (const Segment& s : batch.segments) longest = std::max(longest, s.position + s.length);
    const Var sum =
        long_conv(v(x, *batch.context), filter(std::min(options.length, longest)), batch, 0, options.length);
    return output(x, multiply_groups(sum, shares(batch.segments, x.rows())), *batch.context);
  }
  Var output(const Var& x, const Var& core, const Context& c) override { return out(adjust(x, c) * core, c); }
  int64_t flops(int64_t n) const override {
    return n * width * (6 * width + 2) + long_conv_flops(n, std::min(n, options.length), width);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix a = naive::linear(run.x, run.w, "adjust");
    naive::Matrix h(options.length, width);
    for (int64_t l = 0; l < h.rows; ++l)
      for (int64_t c = 0; c < width; ++c)
        h(l, c) = options.lags == "none" ? 1 : run.w.at("weights")(l, c * options.heads / width);
    naive::Matrix y = naive::long_conv(naive::linear(run.x, run.w, "v"), h, run.state["v"]);
    for (int64_t t = 0; t < y.rows; ++t)
      for (int64_t c = 0; c < width; ++c) y(t, c) *= a(t, c) / std::sqrt(static_cast<double>(run.position + t + 1));
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), v(x, c).value()};
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
