// HGRN2: Gated Linear RNNs with State Expansion (Qin et al., arXiv:2404.07904), equations 6 to 8:
//   f_t = l + (1 - l) sigmoid(W_f x_t);   S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T;   o_t = S_t^T silu(W_q x_t)
//   y_t = W_o rmsnorm(o_t)
// The keys are what the forget gates leave over. The lower bound l in (0, 1) is learned for each channel and starts higher
// in deeper layers, so that they remember longer.
#include <cmath>

#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Hgrn2 : Mixer {
  static constexpr double kNormEpsilon = 1e-5;

  struct Options {
    int64_t heads = 4;
    Fields fields() { return {{"heads", &heads, "heads, each with a state of (d_model / heads)^2", {.min = 1, .max = 1024}}}; }
  };
  static Info info() {
    return {.title = "HGRN2 (gated linear recurrence with state expansion)",
            .paper = "arXiv:2404.07904",
            .equation = "S_t = diag(f_t) S_{t-1} + (1 - f_t) v_t^T, y_t = S_t^T q_t",
            .cost = "O(n d^2 / heads)"};
  }

  Hgrn2(const Dims& d, const Options& o, Rng rng) : options(o), dim(d.d_model / o.heads) {
    if (d.d_model % o.heads) fail({"hgrn2", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", o.heads)});
    q = Linear(d.d_model, d.d_model, rng.fork("q"));
    forget = Linear(d.d_model, d.d_model, rng.fork("forget"));
    v = Linear(d.d_model, d.d_model, rng.fork("v"));
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    norm.init(Tensor::full({d.d_model}, 1));
    bound.init(Tensor::full({d.d_model}, std::min(4.0f, -2 + 0.5f * static_cast<float>(d.depth))));
    norm.decays = bound.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    p("q", q);
    p("forget", forget);
    p("v", v);
    p("out", out);
    p("norm", norm);
    p("bound", bound);
  }
  StateSpec state_spec() const override { return {{"S", {options.heads, dim, dim}}}; }

  struct Core {
    Var q, k, v, g;
  };
  // 1 - f = (1 - l) sigmoid(-z) directly, so that a gate near one keeps its digits.
  Core core_inputs(const Var& x, const Context& c) {
    const Var z = forget(x, c), open = multiply_row(sigmoid(scale(z, -1)), sigmoid(scale(bound, -1)));
    return {silu(q(x, c)), open, v(x, c), log(affine(open, -1, 1))};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Hgrn2>("hgrn2", batch);
    const Core in = core_inputs(x, *batch.context);
    return output(x, gla(in.q, in.k, in.v, in.g, batch, {.heads = options.heads}), *batch.context);
  }
  Var output(const Var&, const Var& core, const Context& c) override {
    return out(rmsnorm(core, norm, {.epsilon = static_cast<float>(kNormEpsilon)}), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (8 * d * d + 6 * d * dim + 20 * d);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix qs = naive::linear(run.x, run.w, "q"), z = naive::linear(run.x, run.w, "forget"), vs = naive::linear(run.x, run.w, "v");
    naive::Matrix& S = run.state["S"];
    if (!S.rows) S = naive::Matrix(options.heads, dim * dim);
    naive::Matrix core(run.x.rows, options.heads * dim);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h)
        for (int64_t p = 0; p < dim; ++p) {
          const int64_t channel = h * dim + p;
          const double l = naive::sigmoid(run.w.at("bound").a[channel]), f = l + (1 - l) * naive::sigmoid(z(t, channel)), open = (1 - l) * naive::sigmoid(-z(t, channel));
          for (int64_t j = 0; j < dim; ++j) {
            double& s = S(h, p * dim + j);
            s = f * s + open * vs(t, h * dim + j);
            core(t, h * dim + j) += s * naive::silu(qs(t, channel));
          }
        }
    return naive::linear(naive::rmsnorm(core, 1, kNormEpsilon, &run.w.at("norm")), run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Core in = core_inputs(x, c);
    const int64_t n = x.rows(), width = options.heads * dim;
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), in.v.value()};
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p) {
          double fade = 0;
          for (int64_t i = j; i < n; ++i) {
            if (i > j) fade += in.g.value().data()[i * width + p];
            m.weights.data()[(h * n + i) * n + j] += static_cast<float>(std::exp(fade) * in.q.value().data()[i * width + p] * in.k.value().data()[j * width + p]);
          }
        }
    return m;
  }

  Options options;
  int64_t dim;
  Linear q, forget, v, out;
  Parameter norm, bound;
};

}  // namespace

void register_hgrn2(Registry<Mixer>& r) { r.add<Hgrn2>("hgrn2"); }

}  // namespace sennit::mixers
