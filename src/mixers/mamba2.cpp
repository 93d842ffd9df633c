// Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality (Dao & Gu,
// arXiv:2405.21060), the Mamba-2 block of section 7:
//   z, x, B, C, dt = W_in u;  x, B, C = silu(conv(x, B, C));  dt = softplus(dt + b)
//   S_t = exp(-exp(A_h) dt_t) S_{t-1} + dt_t B_t x_t^T,   s_t = S_t^T C_t + D_h x_t,   y = W_out rmsnorm(s * silu(z))
// with one decay a head, B and C shared by the heads of a group, and the norm over each group by itself.
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "nn/short_conv.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Mamba2 : Mixer {
  struct Options {
    int64_t head_dim = 16, state = 32, groups = 1, conv = 4;
    double expand = 2, norm_epsilon = 1e-5;
    Fields fields() {
      return {{"head_dim", &head_dim, "channels a head", {.min = 1, .max = 4096}},
              {"state", &state, "numbers a channel keeps", {.min = 1, .max = 4096}},
              {"groups", &groups, "how many B and C there are; a divisor of the heads", {.min = 1, .max = 4096}},
              {"conv", &conv, "width of the short convolution", {.min = 2, .max = 8}},
              {"expand", &expand, "inner width / d_model", {.min = 0.01, .max = 16}},
              {"norm_epsilon", &norm_epsilon, "added to the mean square of a group of the output", {.min = 0, .max = 1}}};
    }
  };
  static Info info() {
    return {.title = "Mamba-2 (state space duality)",
            .paper = "arXiv:2405.21060",
            .equation = "S_t = exp(dt_t A_h) S_{t-1} + dt_t B_t x_t^T, y_t = S_t^T C_t + D_h x_t",
            .cost = "O(n d N), N the state size",
            .settings = {{"grouped", R"({"head_dim": 8, "state": 12, "groups": 4})"}}};
  }

  Mamba2(const Dims& d, const Options& o, Rng rng) : options(o), inner(static_cast<int64_t>(std::llround(o.expand * static_cast<double>(d.d_model)))) {
    if (inner < 1 || inner % o.head_dim) fail({"mamba2", fmt::format("a head_dim that divides expand * d_model = {}", inner), fmt::format("head_dim = {}", o.head_dim)});
    heads = inner / o.head_dim;
    if (heads % o.groups) fail({"mamba2", fmt::format("groups that divide the {} heads", heads), fmt::format("groups = {}", o.groups)});
    const int64_t shared = o.groups * o.state;
    in_z = Linear(d.d_model, inner, rng.fork("in_z"));
    in_x = Linear(d.d_model, inner, rng.fork("in_x"));
    in_b = Linear(d.d_model, shared, rng.fork("in_b"));
    in_c = Linear(d.d_model, shared, rng.fork("in_c"));
    in_dt = Linear(d.d_model, heads, rng.fork("in_dt"), {.bias = true});
    conv_x = ShortConv(inner, o.conv, true, rng.fork("conv_x"));
    conv_b = ShortConv(shared, o.conv, true, rng.fork("conv_b"));
    conv_c = ShortConv(shared, o.conv, true, rng.fork("conv_c"));
    out = Linear(inner, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    // Rates from 1 to 16, steps from 1e-3 to 1e-1, evenly in their logarithms.
    Tensor rate = uniform_init({heads}, 1, 16, rng.fork("rate")), step = uniform_init({heads}, std::log(1e-3), std::log(1e-1), rng.fork("step"));
    for (float& a : rate.span()) a = std::log(a);
    for (float& s : step.span()) s = static_cast<float>(std::log(std::expm1(std::exp(double{s}))));
    in_dt.bias.init(step);
    log_a.init(rate);
    skip.init(Tensor::full({heads}, 1));
    norm.init(Tensor::full({inner}, 1));
    in_dt.bias.decays = log_a.decays = skip.decays = norm.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    for (auto [name, m] : {std::pair<const char*, Module*>{"in_z", &in_z}, {"in_x", &in_x}, {"in_b", &in_b}, {"in_c", &in_c}, {"in_dt", &in_dt},
                           {"conv_x", &conv_x}, {"conv_b", &conv_b}, {"conv_c", &conv_c}, {"out", &out}})
      p(name, *m);
    p("log_a", log_a);
    p("skip", skip);
    p("norm", norm);
  }

  StateSpec state_spec() const override {
    return {{"S", {heads, options.state, options.head_dim}}, conv_x.state("conv_x"), conv_b.state("conv_b"), conv_c.state("conv_c")};
  }

  struct Core {
    Var x, b, c, dt, g;
  };
  Core core_inputs(const Var& u, const Batch& batch) {
    const Context& ctx = *batch.context;
    const int64_t times = heads / options.groups;
    Core in{conv_x(in_x(u, ctx), batch, 1), repeat_groups(conv_b(in_b(u, ctx), batch, 2), options.groups, times),
            repeat_groups(conv_c(in_c(u, ctx), batch, 3), options.groups, times), softplus(in_dt(u, ctx)), {}};
    in.g = scale(multiply_row(in.dt, exp(log_a)), -1);
    return in;
  }

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Mamba2>("mamba2", batch);
    const Core in = core_inputs(u, batch);
    const Var s = gla(in.c, in.b, multiply_groups(in.x, in.dt), in.g, batch, {.heads = heads});
    return output(u, add(s, skipped(in.x)), *batch.context);
  }

  // D_h x for every channel of head h.
  Var skipped(const Var& x) {
    return multiply_row(x, repeat_groups(reshape(skip, {1, heads}), heads, options.head_dim));
  }

  Var output(const Var& u, const Var& core, const Context& c) override {
    return out(rmsnorm(swiglu(in_z(u, c), core), norm, {.groups = options.groups, .epsilon = static_cast<float>(options.norm_epsilon)}), c);
  }

  int64_t flops(int64_t n) const override {
    const int64_t d = out.out(), shared = options.groups * options.state;
    return n * (2 * d * (3 * inner + 2 * shared + heads) + 6 * inner * options.state + 2 * options.conv * (inner + 2 * shared));
  }

  naive::Matrix naive(NaiveRun& run) const override {
    auto part = [&](const std::string& name) { return naive::short_conv(naive::linear(run.x, run.w, "in_" + name), run.w, "conv_" + name, run.state["conv_" + name]); };
    const naive::Matrix x = part("x"), b = part("b"), c = part("c"), z = naive::linear(run.x, run.w, "in_z"), step = naive::linear(run.x, run.w, "in_dt");
    const int64_t states = options.state, dim = options.head_dim;
    naive::Matrix& S = run.state["S"];
    if (!S.rows) S = naive::Matrix(heads, states * dim);
    naive::Matrix y(x.rows, inner);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t group = h * options.groups / heads;
        const double dt = naive::softplus(step(t, h)), a = std::exp(-dt * std::exp(run.w.at("log_a").a[h]));
        for (int64_t p = 0; p < dim; ++p) {
          const int64_t channel = h * dim + p;
          double s = run.w.at("skip").a[h] * x(t, channel);
          for (int64_t n = 0; n < states; ++n) {
            double& kept = S(h, n * dim + p);
            kept = a * kept + dt * b(t, group * states + n) * x(t, channel);
            s += c(t, group * states + n) * kept;
          }
          y(t, channel) = s * naive::silu(z(t, channel));
        }
      }
    return naive::linear(naive::rmsnorm(y, options.groups, options.norm_epsilon, &run.w.at("norm")), run.w, "out");
  }

  // The lower-triangular matrix of the paper's section 3: C_i . B_j exp(sum of the decays between) dt_j.
  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const Segment whole[] = {{0, u.rows(), 0, nullptr}};
    const Core in = core_inputs(u, {whole, &c});
    const int64_t n = u.rows(), states = options.state;
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), in.x.value()};
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t j = 0; j < n; ++j) {
        double fade = 0;
        for (int64_t i = j; i < n; ++i) {
          if (i > j) fade += in.g.value().data()[i * heads + h];
          double cb = 0;
          for (int64_t p = 0; p < states; ++p)
            cb += double{in.c.value().data()[(i * heads + h) * states + p]} * in.b.value().data()[(j * heads + h) * states + p];
          m.weights.data()[(h * n + i) * n + j] =
              static_cast<float>(cb * std::exp(fade) * in.dt.value().data()[j * heads + h] + (i == j ? skip.value().data()[h] : 0));
        }
      }
    return m;
  }

  Options options;
  int64_t inner, heads = 0;
  Linear in_z, in_x, in_b, in_c, in_dt, out;
  ShortConv conv_x, conv_b, conv_c;
  Parameter log_a, skip, norm;
};

}  // namespace

void register_mamba2(Registry<Mixer>& r) { r.add<Mamba2>("mamba2"); }

}  // namespace sennit::mixers
