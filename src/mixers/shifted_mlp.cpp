// RWKV's channel mixing (Peng et al., arXiv:2503.14456, section 4.3), a mixer here since it looks at the token before:
//   y_t = W_down relu(W_up (x_t + (x_{t-1} - x_t) * m))^2
#include "mixers/mixer.h"
#include "nn/token_shift.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"

namespace sennit::mixers {
namespace {

struct ShiftedMlp : Mixer {
  struct Options {
    int64_t hidden = 0;
    Fields fields() { return {{"hidden", &hidden, "width between; 0: 4 d_model", {.min = 0, .max = 1 << 20}}}; }
  };
  static Info info() {
    return {.title = "Two-layer network on a token and the one before it (RWKV's channel mixing)",
            .paper = "arXiv:2503.14456",
            .equation = "y_t = W_down relu(W_up (x_t + (x_{t-1} - x_t) * m))^2",
            .cost = "O(n d^2)"};
  }
  ShiftedMlp(const Dims& d, const Options& o, Rng rng)
      : width(o.hidden ? o.hidden : 4 * d.d_model),
        shift(d.d_model),
        up(d.d_model, width, rng.fork("up")),
        down(width, d.d_model, rng.fork("down"), {.scale = d.out_scale}) {
    mix.init(Tensor::full({d.d_model}, 0.5f));
    mix.decays = false;
  }

  void visit(const ParameterVisitor& p) override { p("up", up), p("down", down), p("mix", mix); }
  StateSpec state_spec() const override { return {shift.state("x")}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<ShiftedMlp>("shifted_mlp", batch);
    return output(x, x + multiply_row(shift(x, batch, 0) - x, mix), *batch.context);
  }
  Var output(const Var&, const Var& mixed, const Context& c) override { return down(relu2(up(mixed, c)), c); }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context&) override {
    const int64_t n = x.rows(), channels = x.columns();
    ImplicitMatrix m{Tensor::zeros({channels, n, n}), x.value()};
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t t = 0; t < n; ++t) {
        float* const row = m.weights.data() + (c * n + t) * n;
        row[t] = 1 - mix.value().data()[c];
        if (t > 0) row[t - 1] = mix.value().data()[c];
      }
    return m;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix mixed = run.x;
    const naive::Matrix before = naive::token_shift(run.x, run.state["x"]);
    for (int64_t t = 0; t < mixed.rows; ++t)
      for (int64_t c = 0; c < mixed.cols; ++c) mixed(t, c) += (before(t, c) - run.x(t, c)) * run.w.at("mix").a[c];
    naive::Matrix h = naive::linear(mixed, run.w, "up");
    for (double& a : h.a) a = naive::activation("relu2", a);
    return naive::linear(h, run.w, "down");
  }
  int64_t flops(int64_t n) const override { return n * (4 * down.out() * width + width + 8 * down.out()); }

  int64_t width;
  TokenShift shift;
  Linear up, down;
  Parameter mix;
};

}  // namespace

void register_shifted_mlp(Registry<Mixer>& r) {
  r.add<ShiftedMlp>("shifted_mlp");
}

}  // namespace sennit::mixers
