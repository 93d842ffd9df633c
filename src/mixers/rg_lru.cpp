// Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language Models (De et al., arXiv:2402.19427),
// section 2.4 and the recurrent block of figure 2:
//   r = sigmoid(W_r x + b_r);  i = sigmoid(W_i x + b_i);  log a = -8 softplus(L) r
//   h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t),   y = W_out (gelu(W_gate u) * h),   x = conv(W_x u)
// The maps W_r and W_i are block-diagonal, one block a head.
#include <cmath>

#include "mixers/diagonal.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"
#include "tensor/pooled.h"

namespace sennit::mixers {
namespace {

constexpr double kSharpness = 8;

struct RgLru : Mixer {
  struct Options {
    int64_t heads = 4, conv = 4;
    double expand = 1;
    Fields fields() {
      return {{"heads", &heads, "blocks of the gates' maps", {.min = 1, .max = 1024}},
              {"conv", &conv, "width of the short convolution", {.min = 2, .max = 8}},
              {"expand", &expand, "inner width / d_model", {.min = 0.01, .max = 16}}};
    }
  };
  static Info info() {
    return {.title = "Real-gated linear recurrent unit (Griffin)",
            .paper = "arXiv:2402.19427",
            .equation = "h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t), log a_t = -8 softplus(L) r_t",
            .cost = "O(n d)"};
  }

  RgLru(const Dims& d, const Options& o, Rng rng) : options(o), inner(static_cast<int64_t>(std::llround(o.expand * static_cast<double>(d.d_model)))) {
    if (inner < 1 || inner % o.heads) fail({"rg_lru", fmt::format("heads that divide the inner width {}", inner), fmt::format("heads = {}", o.heads)});
    in_x = Linear(d.d_model, inner, rng.fork("in_x"));
    in_gate = Linear(d.d_model, inner, rng.fork("in_gate"));
    out = Linear(inner, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    conv_weight.init(uniform_init({inner, o.conv}, -1 / std::sqrt(static_cast<double>(o.conv)), 1 / std::sqrt(static_cast<double>(o.conv)), rng.fork("conv")));
    conv_bias.init(Tensor::zeros({inner}));
    for (int64_t h = 0; h < o.heads; ++h) {
      reset.push_back(Linear(inner / o.heads, inner / o.heads, rng.fork("reset").fork(static_cast<uint64_t>(h)), {.bias = true}));
      input.push_back(Linear(inner / o.heads, inner / o.heads, rng.fork("input").fork(static_cast<uint64_t>(h)), {.bias = true}));
    }
    // a^8 evenly in [0.9, 0.999] at r = 1.
    Tensor l = uniform_init({inner}, 0.9, 0.999, rng.fork("rate"));
    for (float& x : l.span()) x = static_cast<float>(std::log(std::expm1(-std::log(double{x}) / kSharpness)));
    rate.init(l);
    conv_weight.decays = conv_bias.decays = rate.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    p("in_x", in_x);
    p("in_gate", in_gate);
    p("out", out);
    p("conv.weight", conv_weight);
    p("conv.bias", conv_bias);
    for (size_t h = 0; h < reset.size(); ++h) {
      p(fmt::format("reset.{}", h), reset[h]);
      p(fmt::format("input.{}", h), input[h]);
    }
    p("rate", rate);
  }

  StateSpec state_spec() const override { return {{"h", {1, inner}}, {"conv", {options.conv - 1, inner}}}; }

  // W x + b by blocks of columns.
  Var by_heads(std::vector<Linear>& maps, const Var& x, const Context& c) {
    Pooled<Var> parts;
    const int64_t width = inner / options.heads;
    for (int64_t h = 0; h < options.heads; ++h) parts.push_back(maps[h](columns(x, h * width, width), c));
    return concat_columns(parts);
  }

  struct Core {
    Var x, g;
  };
  Core core_inputs(const Var& u, const Batch& batch) {
    const Context& c = *batch.context;
    const Var x = short_conv(in_x(u, c), conv_weight, conv_bias, batch, 1);
    const Var g = scale(multiply_row(sigmoid(by_heads(reset, x, c)), softplus(rate)), static_cast<float>(-kSharpness));
    return {multiply(complement(g), multiply(sigmoid(by_heads(input, x, c)), x)), g};
  }

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<RgLru>("rg_lru", batch);
    const Core in = core_inputs(u, batch);
    return output(u, diagonal_scan(in.x, in.g, batch, 0), *batch.context);
  }

  Var output(const Var& u, const Var& core, const Context& c) override { return out(multiply(gelu(in_gate(u, c)), core), c); }

  int64_t flops(int64_t n) const override {
    return n * (6 * out.out() * inner + 4 * inner * inner / options.heads + inner * (2 * options.conv + 14));
  }

  naive::Matrix naive(NaiveRun& run) const override {
    // This convolution has no silu after it.
    const naive::Matrix v = naive::linear(run.x, run.w, "in_x"), gate = naive::linear(run.x, run.w, "in_gate");
    const naive::Matrix &kernel = run.w.at("conv.weight"), &bias = run.w.at("conv.bias"), &rates = run.w.at("rate");
    naive::Matrix &past = run.state["conv"], &h = run.state["h"];
    if (!past.rows) past = naive::Matrix(options.conv - 1, inner);
    if (!h.rows) h = naive::Matrix(1, inner);
    naive::Matrix all(past.rows + v.rows, inner), x(v.rows, inner), y(v.rows, inner);
    for (int64_t t = 0; t < all.rows; ++t)
      for (int64_t c = 0; c < inner; ++c) all(t, c) = t < past.rows ? past(t, c) : v(t - past.rows, c);
    for (int64_t t = 0; t < v.rows; ++t)
      for (int64_t c = 0; c < inner; ++c) {
        x(t, c) = bias.a[c];
        for (int64_t j = 0; j < options.conv; ++j) x(t, c) += kernel(c, j) * all(t + j, c);
      }
    for (int64_t t = 0; t < past.rows; ++t)
      for (int64_t c = 0; c < inner; ++c) past(t, c) = all(v.rows + t, c);
    const int64_t width = inner / options.heads;
    auto gated = [&](const std::string& name, int64_t t, int64_t c) {
      const int64_t head = c / width;
      const naive::Matrix& weight = run.w.at(fmt::format("{}.{}.weight", name, head));
      double s = run.w.at(fmt::format("{}.{}.bias", name, head)).a[c % width];
      for (int64_t p = 0; p < width; ++p) s += weight(c % width, p) * x(t, head * width + p);
      return naive::sigmoid(s);
    };
    for (int64_t t = 0; t < v.rows; ++t)
      for (int64_t c = 0; c < inner; ++c) {
        const double log_a = -kSharpness * naive::softplus(rates.a[c]) * gated("reset", t, c);
        h(0, c) = std::exp(log_a) * h(0, c) + std::sqrt(-std::expm1(2 * log_a)) * gated("input", t, c) * x(t, c);
        y(t, c) = naive::activation("gelu", gate(t, c)) * h(0, c);
      }
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const Segment whole[] = {{0, u.rows(), 0, nullptr}};
    const Core in = core_inputs(u, {whole, &c});
    return diagonal_matrix(in.x.value(), in.g.value());
  }

  Options options;
  int64_t inner;
  Linear in_x, in_gate, out;
  std::vector<Linear> reset, input;
  Parameter conv_weight, conv_bias, rate;
};

}  // namespace

void register_rg_lru(Registry<Mixer>& r) { r.add<RgLru>("rg_lru"); }

}  // namespace sennit::mixers
