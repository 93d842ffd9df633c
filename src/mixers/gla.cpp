// Gated Linear Attention Transformers with Hardware-Efficient Training (Yang et al., arXiv:2312.06635), equations 3 and
// 4:
//   S_t = diag(a_t) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t / sqrt(K),   y_t = W_o (rmsnorm(o_t) * silu(W_r x_t))
// with a_t = sigmoid(W_2 W_1 x_t + b)^(1/16) a number a key channel ("vector"). Other decays are settings: "none" is
// linear attention (Katharopoulos et al., arXiv:2006.16236, with a norm in place of its denominator unless `divide`),
// "fixed" is retention (Sun et al., arXiv:2307.08621, a_h = 1 - 2^(-5-h)), with `feature` silu TransNormer (Qin et al.,
// arXiv:2307.14995), "scalar" a learned number a head and token. `rotary` turns queries and keys by their positions, as
// cosFormer's second form does (arXiv:2406.16690).
#include <cmath>
#include <numeric>

#include "mixers/mixer.h"
#include "nn/activation.h"
#include "nn/short_conv.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"
#include "sequence/rotary.h"

namespace sennit::mixers {
namespace {

struct Gla : Mixer {
  struct Options {
    int64_t heads = 4, gate_rank = 16, conv = 0;
    double expand_k = 0.5, expand_v = 1, gate_temperature = 16, norm_epsilon = 1e-5;
    std::string decay = "vector", feature = "none";
    bool rotary = false, divide = false;
    Fields fields() {
      return {
          {"heads", &heads, "heads", {.min = 1, .max = 1024}},
          {"decay", &decay, "how the state fades", {.choices = {"vector", "scalar", "fixed", "none"}}},
          {"feature", &feature, "map of queries and keys", {.choices = activation_names()}},
          {"expand_k", &expand_k, "key width / d_model", {.min = 0.01, .max = 16}},
          {"expand_v", &expand_v, "value width / d_model", {.min = 0.01, .max = 16}},
          {"gate_rank", &gate_rank, "rank of the vector decay's map", {.min = 1, .max = 4096}},
          {"gate_temperature", &gate_temperature, "the decay's root", {.min = 1e-3, .max = 1e6}},
          {"rotary", &rotary, "turn queries and keys by their positions"},
          {"divide", &divide,
           "divide by the sum of the weights, no norm: a feature that is positive (elu, sigmoid) and nothing turned"},
          {"conv", &conv, "width of short convolutions on queries, keys and values; 0: none", {.min = 0, .max = 8}},
          {"norm_epsilon", &norm_epsilon, "added to the mean square of a head's output", {.min = 0, .max = 1}}};
    }
  };
  static Info info() {
    return {.title = "Gated linear attention",
            .paper = "arXiv:2312.06635",
            .equation = "S_t = diag(a_t) S_{t-1} + k_t v_t^T, y_t = S_t^T q_t",
            .cost = "O(n d^2 / heads)",
            .settings = {{"linear attention", R"({"decay": "none", "feature": "elu"})"},
                         {"linear attention, divided", R"({"decay": "none", "feature": "elu", "divide": true})"},
                         {"retention", R"({"decay": "fixed"})"},
                         {"TransNormer", R"({"decay": "fixed", "feature": "silu"})"},
                         {"rotary linear attention", R"({"decay": "none", "feature": "silu", "rotary": true})"},
                         {"scalar gates", R"({"decay": "scalar", "feature": "silu", "conv": 4})"}}};
  }

  Gla(const Dims& d, const Options& o, Rng rng)
      : options(o),
        key_dim(static_cast<int64_t>(std::llround(o.expand_k * static_cast<double>(d.d_model))) / o.heads),
        value_dim(static_cast<int64_t>(std::llround(o.expand_v * static_cast<double>(d.d_model))) / o.heads) {
    if (key_dim < 1 || value_dim < 1)
      fail({"gla", "at least one key and value channel a head",
            fmt::format("heads = {} for d_model = {}", o.heads, d.d_model)});
    if (o.rotary && key_dim % 2)
      fail({"gla", "an even number of key channels a head to turn", fmt::format("{}", key_dim)});
    if (o.divide && (o.rotary || (o.feature != "elu" && o.feature != "sigmoid")))
      fail({"gla", "features elu or sigmoid, not turned, for weights to divide by",
            fmt::format("feature = {}, rotary = {}", o.feature, o.rotary)});
    if (o.conv == 1) fail({"gla", "conv = 0 or from 2 to 8", "1"});
    q = Linear(d.d_model, o.heads * key_dim, rng.fork("q"));
    k = Linear(d.d_model, o.heads * key_dim, rng.fork("k"));
    v = Linear(d.d_model, o.heads * value_dim, rng.fork("v"));
    gate = Linear(d.d_model, o.heads * value_dim, rng.fork("gate"));
    out = Linear(o.heads * value_dim, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    if (o.decay == "vector") {
      decay_down = Linear(d.d_model, o.gate_rank, rng.fork("decay_down"));
      decay_up = Linear(o.gate_rank, o.heads * key_dim, rng.fork("decay_up"), {.bias = true});
    } else if (o.decay == "scalar") {
      decay_up = Linear(d.d_model, o.heads, rng.fork("decay_up"), {.bias = true});
    }
    if (o.conv) {
      conv_q = ShortConv(o.heads * key_dim, o.conv, false, rng.fork("conv_q"));
      conv_k = ShortConv(o.heads * key_dim, o.conv, false, rng.fork("conv_k"));
      conv_v = ShortConv(o.heads * value_dim, o.conv, false, rng.fork("conv_v"));
    }
    if (!o.divide) norm.init(Tensor::full({value_dim}, 1));
    norm.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    for (auto [name, m] : {std::pair<const char*, Module*>{"q", &q},
                           {"k", &k},
                           {"v", &v},
                           {"gate", &gate},
                           {"out", &out},
                           {"decay_down", &decay_down},
                           {"decay_up", &decay_up},
                           {"conv_q", &conv_q},
                           {"conv_k", &conv_k},
                           {"conv_v", &conv_v}})
      p(name, *m);
    p("norm", norm);
  }

  StateSpec state_spec() const override {
    StateSpec s = {{"S", {options.heads, key_dim, value_dim}}};
    if (options.conv) s.insert(s.end(), {conv_q.state("conv_q"), conv_k.state("conv_k"), conv_v.state("conv_v")});
    if (options.divide) s.push_back({"keys", {1, options.heads * key_dim}});
    return s;
  }

  Var log_decay(const Var& x, const Context& c) {
    if (options.decay == "none") return {};
    if (options.decay == "fixed") {
      Tensor g({x.rows(), options.heads});
      for (int64_t i = 0; i < x.rows(); ++i)
        for (int64_t h = 0; h < options.heads; ++h)
          g.data()[i * options.heads + h] = static_cast<float>(fixed_decay(h));
      return Var(g);
    }
    const Var z = options.decay == "vector" ? decay_up(decay_down(x, c), c) : decay_up(x, c);
    return scale(log_sigmoid(z), static_cast<float>(1 / options.gate_temperature));
  }
  static double fixed_decay(int64_t head) { return std::log1p(-std::exp2(-5.0 - static_cast<double>(head))); }

  Var part(Linear& map, ShortConv& conv, const Var& x, const Batch& batch, size_t field) {
    const Var y = map(x, *batch.context);
    return options.conv ? conv(y, batch, field) : y;
  }

  Var keyed(Linear& map, ShortConv& conv, const Var& x, const Batch& batch, size_t field) {
    const Var y = activation(options.feature, part(map, conv, x, batch, field));
    return options.rotary ? rotary(y, batch.segments, {.heads = options.heads, .dims = key_dim}) : y;
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Gla>("gla", batch);
    const Var qs = keyed(q, conv_q, x, batch, 1), ks = keyed(k, conv_k, x, batch, 2);
    const Var vs = part(v, conv_v, x, batch, 3), g = log_decay(x, *batch.context);
    const Var core = gla(qs, ks, vs, g, batch, {.heads = options.heads, .scale = scale_of_queries()});
    if (!options.divide) return output(x, core, *batch.context);
    const Var weights = scale(sum_groups(qs * kept_keys(ks, g, batch), options.heads), scale_of_queries());
    return output(x, multiply_groups(core, inverse(weights)), *batch.context);
  }
  // The keys' sum, faded as the state is.
  Var kept_keys(const Var& ks, const Var& g, const Batch& batch) {
    const auto spread = [&](const Var& y) { return multiply_groups(Var(Tensor::full(ks.shape(), 1)), y); };
    const Var wide = !g ? Var(Tensor::zeros(ks.shape())) : g.columns() == options.heads ? spread(g) : g;
    return diagonal_scan(ks, wide, batch, options.conv ? 4 : 1);
  }

  Var output(const Var& x, const Var& core, const Context& c) override {
    if (options.divide) return out(swiglu(gate(x, c), core), c);
    const Var normed = rmsnorm(core, norm, {.groups = options.heads, .epsilon = static_cast<float>(options.norm_epsilon)});
    return out(swiglu(gate(x, c), normed), c);
  }

  float scale_of_queries() const { return 1 / std::sqrt(static_cast<float>(key_dim)); }

  int64_t flops(int64_t n) const override {
    const int64_t d = out.out(), kw = options.heads * key_dim, vw = options.heads * value_dim;
    int64_t per_token =
        2 * d * (2 * kw + 3 * vw) + options.heads * key_dim * value_dim * (options.decay == "none" ? 4 : 6);
    if (options.decay == "vector") per_token += 2 * options.gate_rank * (d + kw);
    if (options.decay == "scalar") per_token += 2 * d * options.heads;
    if (options.divide) per_token += 4 * kw;
    return n * (per_token + 2 * options.conv * (2 * kw + vw));
  }

  naive::Matrix naive(NaiveRun& run) const override {
    auto part = [&](const std::string& name) {
      const naive::Matrix y = naive::linear(run.x, run.w, name);
      return options.conv ? naive::short_conv(y, run.w, "conv_" + name, run.state["conv_" + name]) : y;
    };
    naive::Matrix qs = part("q"), ks = part("k");
    const naive::Matrix vs = part("v");
    for (auto* m : {&qs, &ks})
      for (double& a : m->a) a = naive::activation(options.feature, a);
    for (auto* m : {&qs, &ks})
      for (int64_t t = 0; t < m->rows && options.rotary; ++t)
        for (int64_t h = 0; h < options.heads; ++h)
          for (int64_t p = 0; p < key_dim / 2; ++p) {
            const double angle = static_cast<double>(run.position + t) *
                                 std::pow(10000.0, -2.0 * static_cast<double>(p) / static_cast<double>(key_dim));
            double &a = (*m)(t, h * key_dim + p), &b = (*m)(t, h * key_dim + key_dim / 2 + p);
            const double old = a;
            a = old * std::cos(angle) - b * std::sin(angle), b = old * std::sin(angle) + b * std::cos(angle);
          }
    naive::Matrix z;
    if (options.decay == "vector") z = naive::linear(naive::linear(run.x, run.w, "decay_down"), run.w, "decay_up");
    if (options.decay == "scalar") z = naive::linear(run.x, run.w, "decay_up");
    auto decay = [&](int64_t t, int64_t h, int64_t p) {
      if (options.decay == "none") return 1.0;
      if (options.decay == "fixed") return std::exp(fixed_decay(h));
      return std::pow(naive::sigmoid(options.decay == "vector" ? z(t, h * key_dim + p) : z(t, h)),
                      1 / options.gate_temperature);
    };
    naive::Matrix& state = run.state["S"];
    if (!state.rows) state = naive::Matrix(options.heads, key_dim * value_dim);
    naive::Matrix& kept = run.state["keys"];
    if (!kept.rows) kept = naive::Matrix(1, options.heads * key_dim);
    naive::Matrix core(run.x.rows, options.heads * value_dim), weights(run.x.rows, options.heads);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h)
        for (int64_t p = 0; p < key_dim; ++p) {
          const double a = decay(t, h, p), k_p = ks(t, h * key_dim + p), q_p = qs(t, h * key_dim + p);
          double& of_keys = kept(0, h * key_dim + p);
          of_keys = a * of_keys + k_p;
          weights(t, h) += of_keys * q_p / std::sqrt(static_cast<double>(key_dim));
          for (int64_t j = 0; j < value_dim; ++j) {
            double& s = state(h, p * value_dim + j);
            s = a * s + k_p * vs(t, h * value_dim + j);
            core(t, h * value_dim + j) += s * q_p / std::sqrt(static_cast<double>(key_dim));
          }
        }
    for (int64_t i = 0; options.divide && i < std::ssize(core.a); ++i) core.a[i] /= weights.a[i / value_dim];
    naive::Matrix y =
        options.divide ? core : naive::rmsnorm(core, options.heads, options.norm_epsilon, &run.w.at("norm"));
    const naive::Matrix g = naive::linear(run.x, run.w, "gate");
    for (size_t i = 0; i < y.a.size(); ++i) y.a[i] *= naive::silu(g.a[i]);
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Batch batch{whole, &c};
    const Tensor qs = keyed(q, conv_q, x, batch, 1).value(), ks = keyed(k, conv_k, x, batch, 2).value();
    const Tensor g = log_decay(x, c).value();
    const int64_t n = x.rows(), width = g ? g.row_size() / options.heads : 0;
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), part(v, conv_v, x, batch, 3).value()};
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t p = 0; p < key_dim; ++p) {
          double fade = 0;  // the log decay of key channel p from j to i
          for (int64_t i = j; i < n; ++i) {
            if (g && i > j) fade += g.data()[i * g.row_size() + h * width + (width == 1 ? 0 : p)];
            m.weights.data()[(h * n + i) * n + j] +=
                static_cast<float>(std::exp(fade) * qs.data()[i * qs.row_size() + h * key_dim + p] *
                                   ks.data()[j * ks.row_size() + h * key_dim + p] * scale_of_queries());
          }
        }
    for (int64_t i = 0; options.divide && i < options.heads * n; ++i) {
      float* row = m.weights.data() + i * n;
      const float total = std::accumulate(row, row + n, 0.0f);
      for (int64_t j = 0; j < n; ++j) row[j] /= total;
    }
    return m;
  }

  Options options;
  int64_t key_dim, value_dim;
  Linear q, k, v, gate, out, decay_down, decay_up;
  ShortConv conv_q, conv_k, conv_v;
  Parameter norm;
};

}  // namespace

void register_gla(Registry<Mixer>& r) {
  r.add<Gla>("gla");
}

}  // namespace sennit::mixers
