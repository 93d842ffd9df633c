// Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, arXiv:2312.00752), algorithm 2, figure 3:
//   x, z = W_in u;  x = silu(conv(x));  dt, B, C = W_x x;  dt = softplus(W_dt dt + b)
//   h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,   s_t = C_t h_t + D x_t,   y = W_out (s * silu(z))
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "nn/short_conv.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Mamba : Mixer {
  struct Options {
    int64_t state = 16, conv = 4, dt_rank = 0;
    double expand = 2;
    Fields fields() {
      return {{"state", &state, "numbers a channel keeps", {.min = 1, .max = 1024}},
              {"conv", &conv, "width of the short convolution", {.min = 2, .max = 8}},
              {"expand", &expand, "inner width / d_model", {.min = 0.01, .max = 16}},
              {"dt_rank", &dt_rank, "rank of the step's map; 0: d_model / 16", {.min = 0, .max = 4096}}};
    }
  };
  static Info info() {
    return {.title = "Mamba (selective state space)",
            .paper = "arXiv:2312.00752",
            .equation = "h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t, y_t = C_t h_t + D x_t",
            .cost = "O(n d N), N the state size"};
  }

  Mamba(const Dims& d, const Options& o, Rng rng)
      : options(o), inner(static_cast<int64_t>(std::llround(o.expand * static_cast<double>(d.d_model)))) {
    if (!options.dt_rank) options.dt_rank = (d.d_model + 15) / 16;
    if (inner < 1) fail({"mamba", "at least one inner channel", fmt::format("expand = {} of d_model = {}", o.expand, d.d_model)});
    const double bound = 1 / std::sqrt(static_cast<double>(options.dt_rank));
    in_x = Linear(d.d_model, inner, rng.fork("in_x"));
    in_z = Linear(d.d_model, inner, rng.fork("in_z"));
    conv = ShortConv(inner, o.conv, true, rng.fork("conv"));
    x_dt = Linear(inner, options.dt_rank, rng.fork("x_dt"));
    x_b = Linear(inner, o.state, rng.fork("x_b"));
    x_c = Linear(inner, o.state, rng.fork("x_c"));
    dt = Linear(options.dt_rank, inner, rng.fork("dt"), {.bias = true, .deviation = bound});
    out = Linear(inner, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    // Steps from 1e-3 to 1e-1 evenly in their logarithm; A_n = -n (S4D-real).
    Tensor step = uniform_init({inner}, std::log(1e-3), std::log(1e-1), rng.fork("step")), a({inner, o.state});
    for (float& s : step.span()) s = static_cast<float>(std::log(std::expm1(std::exp(double{s}))));
    for (int64_t i = 0; i < a.elements(); ++i) a.data()[i] = std::log(static_cast<float>(i % o.state + 1));
    dt.bias.init(step);
    log_a.init(a);
    skip.init(Tensor::full({inner}, 1));
    dt.bias.decays = log_a.decays = skip.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    for (auto [name, m] : {std::pair<const char*, Module*>{"in_x", &in_x}, {"in_z", &in_z}, {"conv", &conv}, {"x_dt", &x_dt}, {"x_b", &x_b},
                           {"x_c", &x_c}, {"dt", &dt}, {"out", &out}})
      p(name, *m);
    p("log_a", log_a);
    p("skip", skip);
  }

  StateSpec state_spec() const override { return {{"h", {inner, options.state}}, conv.state("conv")}; }

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Mamba>("mamba", batch);
    const Context& c = *batch.context;
    const Var x = conv(in_x(u, c), batch, 1);
    const Var step = softplus(dt(x_dt(x, c), c)), a = scale(exp(log_a), -1), b = x_b(x, c), cs = x_c(x, c);
    const Var core = selective_scan({.x = x, .dt = step, .a = a, .b = b, .c = cs, .d = skip.var}, batch, 0);
    return output(u, core, c);
  }

  Var output(const Var& u, const Var& core, const Context& c) override { return out(swiglu(in_z(u, c), core), c); }

  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (6 * d * inner + 2 * inner * (2 * options.dt_rank + 2 * options.state + options.conv) + 7 * inner * options.state);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::short_conv(naive::linear(run.x, run.w, "in_x"), run.w, "conv", run.state["conv"]);
    const naive::Matrix step = naive::linear(naive::linear(x, run.w, "x_dt"), run.w, "dt");
    const naive::Matrix b = naive::linear(x, run.w, "x_b"), c = naive::linear(x, run.w, "x_c"), z = naive::linear(run.x, run.w, "in_z");
    naive::Matrix& h = run.state["h"];
    if (!h.rows) h = naive::Matrix(inner, options.state);
    naive::Matrix y(x.rows, inner);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t i = 0; i < inner; ++i) {
        const double d = naive::softplus(step(t, i));
        double s = run.w.at("skip").a[i] * x(t, i);
        for (int64_t n = 0; n < options.state; ++n) {
          h(i, n) = std::exp(-d * std::exp(run.w.at("log_a")(i, n))) * h(i, n) + d * b(t, n) * x(t, i);
          s += c(t, n) * h(i, n);
        }
        y(t, i) = s * naive::silu(z(t, i));
      }
    return naive::linear(y, run.w, "out");
  }

  // One matrix a channel (Ali et al., "The hidden attention of Mamba models", arXiv:2403.01590, equation 11).
  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const Segment whole[] = {{0, u.rows(), 0, nullptr}};
    const Batch batch{whole, &c};
    const Tensor x = conv(in_x(u, c), batch, 1).value();
    const Tensor step = softplus(dt(x_dt(Var(x), c), c)).value(), b = x_b(Var(x), c).value(), cs = x_c(Var(x), c).value();
    const int64_t n = u.rows(), states = options.state;
    ImplicitMatrix m{Tensor::zeros({inner, n, n}), x};
    for (int64_t i = 0; i < inner; ++i)
      for (int64_t j = 0; j < n; ++j) {
        double time = 0;  // the steps' sum from j to t
        for (int64_t t = j; t < n; ++t) {
          if (t > j) time += step.data()[t * inner + i];
          double s = t == j ? skip.value().data()[i] : 0;
          for (int64_t p = 0; p < states; ++p)
            s += cs.data()[t * states + p] * std::exp(-time * std::exp(log_a.value().data()[i * states + p])) * step.data()[j * inner + i] * b.data()[j * states + p];
          m.weights.data()[(i * n + t) * n + j] = static_cast<float>(s);
        }
      }
    return m;
  }

  Options options;
  int64_t inner;
  Linear in_x, in_z, x_dt, x_b, x_c, dt, out;
  ShortConv conv;
  Parameter log_a, skip;
};

}  // namespace

void register_mamba(Registry<Mixer>& r) { r.add<Mamba>("mamba"); }

}  // namespace sennit::mixers
