// Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu & Dao, arXiv:2312.00752), algorithm 2, figure 3:
//   x, z = W_in u;  x = silu(conv(x));  dt, B, C = W_x x;  dt = softplus(W_dt dt + b)
//   h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t,   s_t = C_t h_t + D x_t,   y = W_out (s * silu(z))
#include "mixers/selective.h"
#include "ops/maps.h"

namespace sennit::mixers {
namespace {

struct Mamba : Mixer {
  struct Options {
    int64_t state = 16, conv = 4, dt_rank = 0;
    double expand = 2;
    bool selective = true;
    Fields fields() {
      return {{"state", &state, "numbers a channel keeps", {.min = 1, .max = 1024}},
              {"conv", &conv, "width of the short convolution", {.min = 2, .max = 8}},
              {"expand", &expand, "inner width / d_model", {.min = 0.01, .max = 16}},
              {"dt_rank", &dt_rank, "rank of the step's map; 0: d_model / 16", {.min = 0, .max = 4096}},
              {"selective", &selective, "steps, B and C follow the token; else they are learned and the same for all"}};
    }
  };
  static Info info() {
    return {.title = "Mamba (selective state space)",
            .paper = "arXiv:2312.00752",
            .equation = "h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t, y_t = C_t h_t + D x_t",
            .cost = "O(n d N), N the state size",
            .settings = {{"nothing selected", R"({"selective": false})"}}};
  }

  Mamba(const Dims& d, const Options& o, Rng rng) : inner(inner_width("mamba", d.d_model, o.expand)) {
    in_x = Linear(d.d_model, inner, rng.fork("in_x"));
    in_z = Linear(d.d_model, inner, rng.fork("in_z"));
    core = Selective({inner, o.state, o.conv, o.dt_rank ? o.dt_rank : (d.d_model + 15) / 16, o.selective}, rng);
    out = Linear(inner, d.d_model, rng.fork("out"), {.scale = d.out_scale});
  }

  void visit(const ParameterVisitor& p) override {
    p("in_x", in_x);
    p("in_z", in_z);
    core.visit(p);
    p("out", out);
  }

  StateSpec state_spec() const override { return core.state(); }

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Mamba>("mamba", batch);
    return output(u, core(in_x(u, *batch.context), batch, 0), *batch.context);
  }
  Var output(const Var& u, const Var& s, const Context& c) override { return out(swiglu(in_z(u, c), s), c); }
  int64_t flops(int64_t n) const override { return 6 * n * out.out() * inner + core.flops(n); }

  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix y = core.naive(naive::linear(run.x, run.w, "in_x"), run.w, "", run.state["h"], run.state["conv"]);
    const naive::Matrix z = naive::linear(run.x, run.w, "in_z");
    for (size_t i = 0; i < y.a.size(); ++i) y.a[i] *= naive::silu(z.a[i]);
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    return core.implicit(in_x(u, c), c);
  }

  int64_t inner;
  Linear in_x, in_z, out;
  Selective core;
};

}  // namespace

void register_mamba(Registry<Mixer>& r) {
  r.add<Mamba>("mamba");
}

}  // namespace sennit::mixers
