// Were RNNs All We Needed? (Feng et al., arXiv:2410.01201), section 3.1, the minimal gated recurrent unit:
//   z_t = sigmoid(W_z x_t + b);   h_t = (1 - z_t) h_{t-1} + z_t W_h x_t;   y_t = W_out h_t
// Gates do not read the state, so that a whole sequence is one linear recurrence with log decay -softplus(W_z x + b).
#include <cmath>

#include "mixers/diagonal.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct MinGru : Mixer {
  struct Options {
    double expand = 1;
    Fields fields() { return {{"expand", &expand, "inner width / d_model", {.min = 0.01, .max = 16}}}; }
  };
  static Info info() {
    return {.title = "Minimal gated recurrent unit",
            .paper = "arXiv:2410.01201",
            .equation = "h_t = (1 - z_t) h_{t-1} + z_t W_h x_t",
            .cost = "O(n d)",
            .settings = {{"wide", R"({"expand": 1.5})"}}};
  }

  MinGru(const Dims& d, const Options& o, Rng rng) : inner(static_cast<int64_t>(std::llround(o.expand * static_cast<double>(d.d_model)))) {
    if (inner < 1) fail({"min_gru", "at least one inner channel", fmt::format("expand = {} of d_model = {}", o.expand, d.d_model)});
    gate = Linear(d.d_model, inner, rng.fork("gate"), {.bias = true});
    candidate = Linear(d.d_model, inner, rng.fork("candidate"));
    out = Linear(inner, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    // Memories from a token to some hundreds: z at rest from 1/2 down.
    Tensor b({inner});
    for (int64_t c = 0; c < inner; ++c) b.data()[c] = -6 * static_cast<float>(c) / static_cast<float>(inner);
    gate.bias.init(b);
    gate.bias.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    p("gate", gate);
    p("candidate", candidate);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"h", {1, inner}}}; }

  struct Core {
    Var x, g;
  };
  Core core_inputs(const Var& u, const Context& c) {
    const Var z = gate(u, c);
    return {multiply(sigmoid(z), candidate(u, c)), scale(softplus(z), -1)};
  }
  Var forward(const Var& u, const Batch& batch) override {
    check_batch<MinGru>("min_gru", batch);
    const Core in = core_inputs(u, *batch.context);
    return output(u, diagonal_scan(in.x, in.g, batch, 0), *batch.context);
  }
  Var output(const Var&, const Var& core, const Context& c) override { return out(core, c); }
  int64_t flops(int64_t n) const override { return n * inner * (6 * out.out() + 7); }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix z = naive::linear(run.x, run.w, "gate"), v = naive::linear(run.x, run.w, "candidate");
    naive::Matrix& h = run.state["h"];
    if (!h.rows) h = naive::Matrix(1, inner);
    naive::Matrix y(z.rows, inner);
    for (int64_t t = 0; t < z.rows; ++t)
      for (int64_t c = 0; c < inner; ++c) {
        const double s = naive::sigmoid(z(t, c));
        y(t, c) = h(0, c) = (1 - s) * h(0, c) + s * v(t, c);
      }
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const Core in = core_inputs(u, c);
    return diagonal_matrix(in.x.value(), in.g.value());
  }

  int64_t inner;
  Linear gate, candidate, out;
};

}  // namespace

void register_min_gru(Registry<Mixer>& r) { r.add<MinGru>("min_gru"); }

}  // namespace sennit::mixers
