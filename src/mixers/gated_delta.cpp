// Gated Delta Networks: Improving Mamba2 with Delta Rule (Yang et al., arXiv:2412.06464), equation 10 and section 3.3:
//   S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T,   o_t = S_t^T q_t / sqrt(K)
//   q, k = l2norm(silu(conv(W x))), v = silu(conv(W x)), b = sigmoid(W_b x), a = exp(-exp(A) softplus(W_a x + dt))
//   y_t = W_o (rmsnorm(o_t) * silu(W_g x_t))
// gated = false is DeltaNet (Yang et al., arXiv:2406.06484).
#include <cmath>

#include "mixers/mixer.h"
#include "nn/init.h"
#include "nn/short_conv.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct GatedDelta : Mixer {
  static constexpr double kUnitEpsilon = 1e-6;

  struct Options {
    int64_t heads = 4, conv = 4;
    double expand_k = 0.75, expand_v = 1.5, norm_epsilon = 1e-5;
    bool gated = true, negative = false;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"expand_k", &expand_k, "key width / d_model", {.min = 0.01, .max = 16}},
              {"expand_v", &expand_v, "value width / d_model", {.min = 0.01, .max = 16}},
              {"conv", &conv, "width of the short convolutions", {.min = 2, .max = 8}},
              {"gated", &gated, "let the state fade; false is DeltaNet"},
              {"negative", &negative, "let b reach 2, so that eigenvalues reach -1"},
              {"norm_epsilon", &norm_epsilon, "added to the mean square of a head's output", {.min = 0, .max = 1}}};
    }
  };
  static Info info() {
    return {.title = "Gated delta rule",
            .paper = "arXiv:2412.06464",
            .equation = "S_t = a_t (I - b_t k_t k_t^T) S_{t-1} + b_t k_t v_t^T, y_t = S_t^T q_t",
            .cost = "O(n d^2 / heads)",
            .settings = {{"DeltaNet", R"({"gated": false})"}, {"negative eigenvalues", R"({"negative": true})"}}};
  }

  GatedDelta(const Dims& d, const Options& o, Rng rng)
      : options(o), key_dim(static_cast<int64_t>(std::llround(o.expand_k * static_cast<double>(d.d_model))) / o.heads),
        value_dim(static_cast<int64_t>(std::llround(o.expand_v * static_cast<double>(d.d_model))) / o.heads) {
    if (key_dim < 1 || value_dim < 1)
      fail({"gated_delta", "at least one key and value channel a head", fmt::format("heads = {} for d_model = {}", o.heads, d.d_model)});
    const int64_t keys = o.heads * key_dim, values = o.heads * value_dim;
    q = Linear(d.d_model, keys, rng.fork("q"));
    k = Linear(d.d_model, keys, rng.fork("k"));
    v = Linear(d.d_model, values, rng.fork("v"));
    beta = Linear(d.d_model, o.heads, rng.fork("beta"));
    gate = Linear(d.d_model, values, rng.fork("gate"));
    out = Linear(values, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    conv_q = ShortConv(keys, o.conv, false, rng.fork("conv_q"));
    conv_k = ShortConv(keys, o.conv, false, rng.fork("conv_k"));
    conv_v = ShortConv(values, o.conv, false, rng.fork("conv_v"));
    norm.init(Tensor::full({value_dim}, 1));
    norm.decays = false;
    if (!o.gated) return;
    fade = Linear(d.d_model, o.heads, rng.fork("fade"));
    // Mamba-2's start: rates from 1 to 16, steps from 1e-3 to 1e-1, evenly in their logarithms.
    Tensor rate = uniform_init({o.heads}, 1, 16, rng.fork("rate")), step = uniform_init({o.heads}, std::log(1e-3), std::log(1e-1), rng.fork("step"));
    for (float& a : rate.span()) a = std::log(a);
    for (float& s : step.span()) s = static_cast<float>(std::log(std::expm1(std::exp(double{s}))));
    log_rate.init(rate);
    step_bias.init(step);
    log_rate.decays = step_bias.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    for (auto [name, m] : {std::pair<const char*, Module*>{"q", &q}, {"k", &k}, {"v", &v}, {"beta", &beta}, {"fade", &fade}, {"gate", &gate},
                           {"out", &out}, {"conv_q", &conv_q}, {"conv_k", &conv_k}, {"conv_v", &conv_v}})
      p(name, *m);
    p("norm", norm);
    p("log_rate", log_rate);
    p("step_bias", step_bias);
  }

  StateSpec state_spec() const override {
    return {{"S", {options.heads, key_dim, value_dim}}, conv_q.state("conv_q"), conv_k.state("conv_k"), conv_v.state("conv_v")};
  }

  struct Core {
    Var q, k, v, beta, g;
  };
  Core core_inputs(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const NormOptions unit{.groups = options.heads, .epsilon = static_cast<float>(kUnitEpsilon)};
    Core in{l2norm(conv_q(q(x, c), batch, 1), unit), l2norm(conv_k(k(x, c), batch, 2), unit), conv_v(v(x, c), batch, 3), sigmoid(beta(x, c)), {}};
    if (options.negative) in.beta = scale(in.beta, 2);
    if (options.gated) in.g = scale(multiply_row(softplus(add_row(fade(x, c), step_bias)), exp(log_rate)), -1);
    return in;
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<GatedDelta>("gated_delta", batch);
    const Core in = core_inputs(x, batch);
    const Var core = gated_delta(in.q, in.k, in.v, in.beta, in.g, batch, {.heads = options.heads, .scale = scale_of_queries()});
    return output(x, core, *batch.context);
  }

  Var output(const Var& x, const Var& core, const Context& c) override {
    const Var normed = rmsnorm(core, norm, {.groups = options.heads, .epsilon = static_cast<float>(options.norm_epsilon)});
    return out(swiglu(gate(x, c), normed), c);
  }

  float scale_of_queries() const { return 1 / std::sqrt(static_cast<float>(key_dim)); }

  int64_t flops(int64_t n) const override {
    const int64_t d = out.out(), kw = options.heads * key_dim, vw = options.heads * value_dim;
    return n * (2 * d * (2 * kw + 3 * vw + (options.gated ? 2 : 1) * options.heads) + 8 * options.heads * key_dim * value_dim + 2 * options.conv * (2 * kw + vw));
  }

  naive::Matrix naive(NaiveRun& run) const override {
    auto part = [&](const std::string& name) {
      return naive::short_conv(naive::linear(run.x, run.w, name), run.w, "conv_" + name, run.state["conv_" + name]);
    };
    const naive::Matrix qs = naive::l2norm(part("q"), options.heads, kUnitEpsilon), ks = naive::l2norm(part("k"), options.heads, kUnitEpsilon);
    const naive::Matrix vs = part("v"), bs = naive::linear(run.x, run.w, "beta");
    const naive::Matrix fs = options.gated ? naive::linear(run.x, run.w, "fade") : naive::Matrix();
    naive::Matrix& state = run.state["S"];
    if (!state.rows) state = naive::Matrix(options.heads, key_dim * value_dim);
    naive::Matrix core(run.x.rows, options.heads * value_dim);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h) {
        const double b = naive::sigmoid(bs(t, h)) * (options.negative ? 2 : 1);
        const double a = options.gated ? std::exp(-std::exp(run.w.at("log_rate").a[h]) * naive::softplus(fs(t, h) + run.w.at("step_bias").a[h])) : 1;
        for (int64_t j = 0; j < value_dim; ++j) {
          double kS = 0;
          for (int64_t p = 0; p < key_dim; ++p) kS += ks(t, h * key_dim + p) * state(h, p * value_dim + j);
          for (int64_t p = 0; p < key_dim; ++p) {
            double& s = state(h, p * value_dim + j);
            const double k_p = ks(t, h * key_dim + p);
            s = a * (s - b * k_p * kS) + b * k_p * vs(t, h * value_dim + j);
            core(t, h * value_dim + j) += s * qs(t, h * key_dim + p) / std::sqrt(static_cast<double>(key_dim));
          }
        }
      }
    naive::Matrix y = naive::rmsnorm(core, options.heads, options.norm_epsilon, &run.w.at("norm"));
    const naive::Matrix g = naive::linear(run.x, run.w, "gate");
    for (size_t i = 0; i < y.a.size(); ++i) y.a[i] *= naive::silu(g.a[i]);
    return naive::linear(y, run.w, "out");
  }

  // Column j: b_j k_j carried through the steps after it.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Core in = core_inputs(x, {whole, &c});
    const int64_t n = x.rows(), width = options.heads * key_dim;
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), in.v.value()};
    std::vector<double> u(key_dim);
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t i = j; i < n; ++i) {
          const float *k_i = in.k.value().data() + i * width + h * key_dim, *q_i = in.q.value().data() + i * width + h * key_dim;
          const double b = in.beta.value().data()[i * options.heads + h], a = in.g ? std::exp(double{in.g.value().data()[i * options.heads + h]}) : 1;
          double ku = 0, qu = 0;
          for (int64_t p = 0; p < key_dim && i > j; ++p) ku += k_i[p] * u[p];
          for (int64_t p = 0; p < key_dim; ++p) {
            u[p] = i == j ? b * k_i[p] : a * (u[p] - b * k_i[p] * ku);
            qu += q_i[p] * u[p];
          }
          m.weights.data()[(h * n + i) * n + j] = static_cast<float>(qu * scale_of_queries());
        }
    return m;
  }

  Options options;
  int64_t key_dim, value_dim;
  Linear q, k, v, beta, fade, gate, out;
  ShortConv conv_q, conv_k, conv_v;
  Parameter norm, log_rate, step_bias;
};

}  // namespace

void register_gated_delta(Registry<Mixer>& r) { r.add<GatedDelta>("gated_delta"); }

}  // namespace sennit::mixers
