// Long Expressive Memory for Sequence Modeling (Rusch et al., arXiv:2110.04744), equation 3:
//   z_t = (1 - d_t) z_{t-1} + d_t tanh(W_z x_t + R_z h_{t-1}),        d_t = limit sigmoid(W_2 x_t + R_2 h_{t-1})
//   h_t = (1 - e_t) h_{t-1} + e_t tanh(W_h x_t + R_h z_t),            e_t = limit sigmoid(W_1 x_t + R_1 h_{t-1})
//   y_t = W_o h_t
// Two states with time steps of their own; with `limit` of at most 1 neither leaves [-1, 1]. One head is the dense
// cell.
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "sequence/rnn.h"

namespace sennit::mixers {
namespace {

struct Lem : Mixer {
  struct Options {
    int64_t heads = 4;
    double limit = 1;
    Fields fields() {
      return {{"heads", &heads, "heads, each with feedback matrices of its own", {.min = 1, .max = 1024}},
              {"limit", &limit, "the largest time step", {.min = 1e-6, .max = 1}}};
    }
  };
  static Info info() {
    return {.title = "Long expressive memory",
            .paper = "arXiv:2110.04744",
            .equation = "z_t = z + d_t (tanh(W_z x_t + R_z h) - z), h_t = h + e_t (tanh(W_h x_t + R_h z_t) - h)",
            .cost = "O(n d^2)",
            .settings = {{"one head", R"({"heads": 1, "limit": 0.5})"}}};
  }
  Lem(const Dims& d, const Options& o, Rng rng) : options(o), dim(head_dim("lem", d.d_model, o.heads)) {
    in = Linear(d.d_model, 4 * d.d_model, rng.fork("in"), {.bias = true});
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    const double bound = 1 / std::sqrt(static_cast<double>(dim));
    feedback.init(uniform_init({d.d_model, 4 * dim}, -bound, bound, rng.fork("feedback")));
  }
  void visit(const ParameterVisitor& p) override {
    p("in", in);
    p("feedback", feedback);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"state", {options.heads, 2, dim}}}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Lem>("lem", batch);
    const Context& c = *batch.context;
    return out(
        staged_rnn(StagedCell::lem, in(x, c), feedback, options.heads, static_cast<float>(options.limit), batch, 0), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (10 * d * d + 4 * d * (2 * dim + 8));
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::linear(run.x, run.w, "in"), &r = run.w.at("feedback");
    naive::Matrix& s = run.state["state"];
    if (!s.rows) s = naive::Matrix(options.heads, 2 * dim);
    naive::Matrix y(x.rows, options.heads * dim);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h) {
        const auto gate = [&](int64_t g, int64_t c, int64_t from) {
          double p = x(t, (h * 4 + g) * dim + c);
          for (int64_t j = 0; j < dim; ++j) p += s(h, from + j) * r(h * dim + j, g * dim + c);
          return p;
        };
        std::vector<double> step(dim), z(dim);
        for (int64_t c = 0; c < dim; ++c) {
          const double open = options.limit * naive::sigmoid(gate(1, c, 0));
          step[c] = options.limit * naive::sigmoid(gate(0, c, 0));
          z[c] = (1 - open) * s(h, dim + c) + open * std::tanh(gate(2, c, 0));
        }
        for (int64_t c = 0; c < dim; ++c) s(h, dim + c) = z[c];
        for (int64_t c = 0; c < dim; ++c)
          y(t, h * dim + c) = (1 - step[c]) * s(h, c) + step[c] * std::tanh(gate(3, c, dim));
        for (int64_t c = 0; c < dim; ++c) s(h, c) = y(t, h * dim + c);
      }
    return naive::linear(y, run.w, "out");
  }

  Options options;
  int64_t dim;
  Linear in, out;
  Parameter feedback;
};

}  // namespace

void register_lem(Registry<Mixer>& r) {
  r.add<Lem>("lem");
}

}  // namespace sennit::mixers
