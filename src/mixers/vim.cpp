// Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model (Zhu et al.,
// arXiv:2401.09417), algorithm 1: two selective state spaces, one of them on the sequence backwards,
//   x, z = W_in u;   y = W_out ((F(x) + reversed B(reversed x)) * silu(z))
#include "mixers/selective.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "sequence/reverse.h"

namespace sennit::mixers {
namespace {

struct Vim : Mixer {
  struct Options {
    int64_t state = 16, conv = 4, dt_rank = 0;
    double expand = 2;
    Fields fields() {
      return {{"state", &state, "numbers a channel keeps", {.min = 1, .max = 1024}},
              {"conv", &conv, "width of the short convolutions", {.min = 2, .max = 8}},
              {"expand", &expand, "inner width / d_model", {.min = 0.01, .max = 16}},
              {"dt_rank", &dt_rank, "rank of the step's map; 0: d_model / 16", {.min = 0, .max = 4096}}};
    }
  };
  static Info info() {
    return {.title = "Bidirectional Mamba (Vision Mamba)",
            .paper = "arXiv:2401.09417",
            .equation = "y = (F(x) + reversed B(reversed x)) silu(z), F and B selective state spaces",
            .cost = "O(n d N), N the state size",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token sees those after it"};
  }

  Vim(const Dims& d, const Options& o, Rng rng) : inner(inner_width("vim", d.d_model, o.expand)) {
    const Selective::Sizes sizes{inner, o.state, o.conv, o.dt_rank ? o.dt_rank : (d.d_model + 15) / 16};
    in_x = Linear(d.d_model, inner, rng.fork("in_x"));
    in_z = Linear(d.d_model, inner, rng.fork("in_z"));
    ahead = Selective(sizes, rng.fork("ahead"));
    back = Selective(sizes, rng.fork("back"));
    out = Linear(inner, d.d_model, rng.fork("out"), {.scale = d.out_scale});
  }
  void visit(const ParameterVisitor& p) override {
    p("in_x", in_x);
    p("in_z", in_z);
    p("ahead", ahead);
    p("back", back);
    p("out", out);
  }
  StateSpec state_spec() const override { return {}; }

  Var forward(const Var& u, const Batch& batch) override {
    check_batch<Vim>("vim", batch);
    const Var x = in_x(u, *batch.context);
    const Var both = ahead(x, batch, 0) + reversed(back(reversed(x, batch.segments), batch, 0), batch.segments);
    return gated(u, both, *batch.context);
  }
  Var gated(const Var& u, const Var& both, const Context& c) { return out(swiglu(in_z(u, c), both), c); }
  // The core's heads are the channels of one direction, then of the other.
  Var output(const Var& u, const Var& core, const Context& c) override {
    return gated(u, columns(core, 0, inner) + columns(core, inner, inner), c);
  }
  int64_t flops(int64_t n) const override { return 6 * n * out.out() * inner + ahead.flops(n) + back.flops(n); }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::linear(run.x, run.w, "in_x"), z = naive::linear(run.x, run.w, "in_z");
    naive::Matrix h, conv, h_back, conv_back;
    naive::Matrix y = ahead.naive(x, run.w, "ahead.", h, conv);
    const naive::Matrix other = naive::reversed(back.naive(naive::reversed(x), run.w, "back.", h_back, conv_back));
    for (size_t i = 0; i < y.a.size(); ++i) y.a[i] = (y.a[i] + other.a[i]) * naive::silu(z.a[i]);
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& u, const Context& c) override {
    const int64_t n = u.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Var x = in_x(u, c);
    const ImplicitMatrix f = ahead.implicit(x, c), b = back.implicit(reversed(x, whole), c);
    const Var values[] = {Var(f.values), reversed(Var(b.values), whole)};
    ImplicitMatrix m{Tensor({2 * inner, n, n}), concat_columns(values).value()};
    for (int64_t i = 0; i < inner * n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const int64_t channel = i / n, t = i % n;
        m.weights.data()[i * n + j] = f.weights.data()[i * n + j];
        m.weights.data()[(inner * n + i) * n + j] = b.weights.data()[(channel * n + n - 1 - t) * n + n - 1 - j];
      }
    return m;
  }

  int64_t inner;
  Linear in_x, in_z, out;
  Selective ahead, back;
};

}  // namespace

void register_vim(Registry<Mixer>& r) {
  r.add<Vim>("vim");
}

}  // namespace sennit::mixers
