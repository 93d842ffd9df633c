// Closed-form Continuous-time Neural Networks (Hasani et al., arXiv:2106.13898), equation 10, with a recurrence of low
// rank and few entries (Leveraging Low-Rank and Sparse Recurrent Connectivity, Tumma et al., arXiv:2310.03915):
//   m_t = tanh(W x_t + R h_{t-1}),   s_t = sigmoid(-f(m_t)),   h_t = s_t tanh(g(m_t)) + (1 - s_t) tanh(k(m_t)),   y_t =
//   W_o h_t
// R is full, or of low rank and masked (mixers/masked_feedback.h);   f, g, k are linear
#include <cmath>

#include "mixers/heads.h"
#include "mixers/masked_feedback.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "sequence/rnn.h"
#include "tensor/pooled.h"

namespace sennit::mixers {
namespace {

struct Cfc : Mixer {
  struct Options : MaskedFeedback::Options {
    int64_t heads = 4;
    Fields fields() {
      Fields all = {{"heads", &heads, "heads, each with a recurrence of its own", {.min = 1, .max = 1024}}};
      for (Field& f : MaskedFeedback::Options::fields()) all.push_back(std::move(f));
      return all;
    }
  };
  static Info info() {
    return {.title = "Closed-form continuous-time cell",
            .paper = "arXiv:2106.13898",
            .equation = "m = tanh(W x_t + R h_{t-1}), h_t = s tanh(g m) + (1 - s) tanh(k m), s = sigmoid(-f m)",
            .cost = "O(n d^2)",
            .settings = {{"low rank and sparse", R"({"rank": 2, "sparsity": 0.5, "heads": 2})"}}};
  }
  Cfc(const Dims& d, const Options& o, Rng rng)
      : options(o), dim(head_dim("cfc", d.d_model, o.heads)), width(d.d_model) {
    in = Linear(width, width, rng.fork("in"), {.bias = true});
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    const double deviation = 1 / std::sqrt(static_cast<double>(dim));
    feedback = MaskedFeedback("cfc", o, d, o.heads, 1, deviation, rng);
    heads_of_m.init(normal_init({width, 3 * dim}, deviation, rng.fork("heads")));
    shift.init(Tensor::zeros({3 * width}));
    shift.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    p("in", in);
    p("out", out);
    feedback.visit(p);
    p("heads", heads_of_m), p("shift", shift);
  }
  StateSpec state_spec() const override { return {{"h", {options.heads, 1, dim}}}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Cfc>("cfc", batch);
    const Context& c = *batch.context;
    const Var both[] = {feedback.matrix(), heads_of_m};
    // Every head's gates: the input of m, then the shifts of f, g and k.
    const Var shifts = add_row(Var(Tensor::zeros({x.rows(), 3 * width})), shift), from_x = in(x, c);
    Pooled<Var> gates;
    for (int64_t h = 0; h < options.heads; ++h) {
      gates.push_back(columns(from_x, h * dim, dim));
      gates.push_back(columns(shifts, h * 3 * dim, 3 * dim));
    }
    return out(staged_rnn(StagedCell::cfc, concat_columns(gates), concat_columns(both), options.heads, 1, batch, 0), c);
  }
  int64_t flops(int64_t n) const override {
    return n * (4 * width * width + width * (4 * (2 * dim + 8) + 3)) + feedback.flops();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::linear(run.x, run.w, "in"), &all = run.w.at("heads"), &b = run.w.at("shift");
    const naive::Matrix r = feedback.naive(run.w);
    naive::Matrix& s = run.state["h"];
    if (!s.rows) s = naive::Matrix(options.heads, dim);
    naive::Matrix y(x.rows, width);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h) {
        std::vector<double> m(dim);
        for (int64_t c = 0; c < dim; ++c) {
          double p = x(t, h * dim + c);
          for (int64_t j = 0; j < dim; ++j) p += s(h, j) * r(h * dim + j, c);
          m[c] = std::tanh(p);
        }
        for (int64_t c = 0; c < dim; ++c) {
          double p[3];
          for (int64_t g = 0; g < 3; ++g) {
            p[g] = b.a[(h * 3 + g) * dim + c];
            for (int64_t j = 0; j < dim; ++j) p[g] += m[j] * all(h * dim + j, g * dim + c);
          }
          const double first = naive::sigmoid(-p[0]);
          y(t, h * dim + c) = s(h, c) = first * std::tanh(p[1]) + (1 - first) * std::tanh(p[2]);
        }
      }
    return naive::linear(y, run.w, "out");
  }

  Options options;
  int64_t dim, width;
  Linear in, out;
  MaskedFeedback feedback;
  Parameter heads_of_m, shift;
};

}  // namespace

void register_cfc(Registry<Mixer>& r) {
  r.add<Cfc>("cfc");
}

}  // namespace sennit::mixers
