// GateLoop: Fully Data-Controlled Linear Recurrence for Sequence Modeling (Katsch, arXiv:2311.01927), equations 4 to 8:
//   S_t = diag(a_t) S_{t-1} + k_t v_t^T,   o_t = Re(S_t^T q_t),   a_t = sigmoid(alpha(x_t)) exp(i beta(x_t))
//   y_t = W_o (o_t * silu(W_g x_t))
// The phase of a complex decay is a turn of queries and keys by the angles summed so far, so that cosines and sines of
// them are two real channels in the place of a complex one.
#include <cmath>

#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"
#include "sequence/running.h"

namespace sennit::mixers {
namespace {

struct GateLoop : Mixer {
  struct Options {
    int64_t heads = 4;
    bool phase = true;
    Fields fields() {
      return {{"heads", &heads, "heads, each with a state of (d_model / heads)^2", {.min = 1, .max = 1024}},
              {"phase", &phase, "complex decays; false leaves their sizes only"}};
    }
  };
  static Info info() {
    return {.title = "GateLoop",
            .paper = "arXiv:2311.01927",
            .equation = "S_t = diag(a_t) S_{t-1} + k_t v_t^T, y_t = Re(S_t^T q_t), a_t complex",
            .cost = "O(n d^2 / heads)",
            .settings = {{"real", R"({"phase": false})"}}};
  }

  GateLoop(const Dims& d, const Options& o, Rng rng) : options(o), dim(d.d_model / o.heads) {
    if (d.d_model % o.heads)
      fail({"gateloop", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", o.heads)});
    for (auto [name, map] : {std::pair<const char*, Linear*>{"q", &q}, {"k", &k}, {"v", &v}, {"gate", &gate}})
      *map = Linear(d.d_model, d.d_model, rng.fork(name));
    size = Linear(d.d_model, d.d_model, rng.fork("size"), {.bias = true});
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    if (o.phase) turn = Linear(d.d_model, d.d_model, rng.fork("turn"), {.bias = true, .scale = 0.1});
    // Memories from two tokens to some hundreds.
    for (int64_t c = 0; c < d.d_model; ++c)
      size.bias.var.value().data()[c] = 6 * static_cast<float>(c % dim) / static_cast<float>(dim);
    size.bias.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    p("q", q);
    p("k", k);
    p("v", v);
    p("gate", gate);
    p("size", size);
    if (options.phase) p("turn", turn);
    p("out", out);
  }
  StateSpec state_spec() const override {
    if (!options.phase) return {{"S", {options.heads, dim, dim}}};
    return {{"S", {options.heads, 2 * dim, dim}}, {"angle", {1, options.heads * dim}}};
  }

  struct Core {
    Var q, k, v, log_decay;
  };
  Core core_inputs(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const Core real{q(x, c), k(x, c), v(x, c), log_sigmoid(size(x, c))};
    if (!options.phase) return real;
    const Var turned = running_phase(turn(x, c), options.heads, batch, 1);
    const auto both = [&](const Var& y) { return repeat_groups(y, options.heads, 2); };
    return {both(real.q) * turned, both(real.k) * turned, real.v, both(real.log_decay)};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<GateLoop>("gateloop", batch);
    const Core in = core_inputs(x, batch);
    return output(x, gla(in.q, in.k, in.v, in.log_decay, batch, {.heads = options.heads, .scale = scale_of_queries()}),
                  *batch.context);
  }
  Var output(const Var& x, const Var& core, const Context& c) override { return out(swiglu(gate(x, c), core), c); }
  float scale_of_queries() const { return 1 / std::sqrt(static_cast<float>(dim)); }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n *
           (2 * d * d * (options.phase ? 7 : 6) + 6 * d * dim * (options.phase ? 2 : 1) + (options.phase ? 18 : 6) * d);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix in[4];
    const char* const names[] = {"q", "k", "v", "size"};
    for (int i = 0; i < 4; ++i) in[i] = naive::linear(run.x, run.w, names[i]);
    const naive::Matrix turns = options.phase ? naive::linear(run.x, run.w, "turn") : naive::Matrix();
    const int64_t parts = options.phase ? 2 : 1, width = options.heads * dim;
    naive::Matrix &S = run.state["S"], &angle = run.state["angle"];
    if (!S.rows) S = naive::Matrix(options.heads, parts * dim * dim), angle = naive::Matrix(1, width);
    naive::Matrix core(run.x.rows, width);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t c = 0; c < width; ++c) {  // key channel
        if (options.phase) angle.a[c] = std::remainder(angle.a[c] + turns(t, c), 2 * M_PI);
        for (int64_t part = 0; part < parts; ++part) {
          const double turned = part ? std::sin(angle.a[c]) : options.phase ? std::cos(angle.a[c]) : 1;
          for (int64_t j = 0; j < dim; ++j) {
            double& s = S(c / dim, (part * dim + c % dim) * dim + j);
            s = naive::sigmoid(in[3](t, c)) * s + in[1](t, c) * turned * in[2](t, c / dim * dim + j);
            core(t, c / dim * dim + j) += s * in[0](t, c) * turned / std::sqrt(static_cast<double>(dim));
          }
        }
      }
    const naive::Matrix g = naive::linear(run.x, run.w, "gate");
    for (size_t i = 0; i < core.a.size(); ++i) core.a[i] *= naive::silu(g.a[i]);
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Core in = core_inputs(x, {whole, &c});
    const int64_t n = x.rows(), width = in.q.columns(), wide = width / options.heads;
    const float *qs = in.q.value().data(), *ks = in.k.value().data(), *g = in.log_decay.value().data();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), in.v.value()};
    for (int64_t p = 0; p < width; ++p)
      for (int64_t j = 0; j < n; ++j) {
        double fade = 0;
        for (int64_t i = j; i < n; ++i) {
          if (i > j) fade += g[i * width + p];
          m.weights.data()[(p / wide * n + i) * n + j] +=
              static_cast<float>(std::exp(fade) * qs[i * width + p] * ks[j * width + p] * scale_of_queries());
        }
      }
    return m;
  }

  Options options;
  int64_t dim;
  Linear q, k, v, gate, size, turn, out;
};

}  // namespace

void register_gateloop(Registry<Mixer>& r) {
  r.add<GateLoop>("gateloop");
}

}  // namespace sennit::mixers
