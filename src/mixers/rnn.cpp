// FlashRNN: I/O-Aware Optimization of Traditional RNNs (Poeppel et al., arXiv:2412.07752), section 2: recurrent cells
// with a feedback matrix for each head,
//   h_t, s_t = cell(W x_t + b, h_{t-1} R_head, s_{t-1}),   y_t = W_o h_t
// The cells: Elman (1990), LSTM (Hochreiter & Schmidhuber, 1997), GRU (Cho et al., arXiv:1406.1078, its reset after the
// product) and sLSTM (Beck et al., arXiv:2405.04517, equations 8 to 17). One head is the classical dense cell. R is
// full, or of low rank and masked (mixers/masked_feedback.h).
#include "sequence/rnn.h"

#include <array>
#include <cmath>

#include "mixers/masked_feedback.h"

namespace sennit::mixers {
namespace {

struct Rnn : Mixer {
  struct Options : MaskedFeedback::Options {
    std::string cell = "lstm";
    int64_t heads = 4;
    Fields fields() {
      Fields all = {{"cell", &cell, "the cell", {.choices = {"elman", "lstm", "gru", "slstm"}}},
                    {"heads", &heads, "heads, each with a feedback matrix of its own", {.min = 1, .max = 1024}}};
      for (Field& f : MaskedFeedback::Options::fields()) all.push_back(std::move(f));
      return all;
    }
  };
  static Info info() {
    return {.title = "Recurrent cells (LSTM, GRU, sLSTM, Elman)",
            .paper = "arXiv:2412.07752",
            .equation = "h_t, s_t = cell(W x_t + b, R h_{t-1}, s_{t-1})",
            .cost = "O(n d^2)",
            .settings = {{"gru", R"({"cell": "gru"})"},
                         {"slstm", R"({"cell": "slstm"})"},
                         {"elman", R"({"cell": "elman", "heads": 1})"},
                         {"low rank and sparse gru", R"({"cell": "gru", "rank": 2, "sparsity": 0.5, "heads": 2})"}}};
  }

  Rnn(const Dims& d, const Options& o, Rng rng)
      : options(o), dim(d.d_model / o.heads), cell(cell_of(o.cell)), gates(kernels::rnn_gates(cell)) {
    if (d.d_model % o.heads)
      fail({"rnn", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", o.heads)});
    in = Linear(d.d_model, gates * d.d_model, rng.fork("in"), {.bias = true});
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    feedback = MaskedFeedback("rnn", o, d, o.heads, gates, 0.5 / std::sqrt(static_cast<double>(dim)), rng);
    in.bias.decays = false;
    if (cell != RnnCell::lstm && cell != RnnCell::slstm) return;
    // Forget gates start open: the classical 1, and for sLSTM from 3 to 6.
    for (int64_t h = 0; h < o.heads; ++h)
      for (int64_t c = 0; c < dim; ++c)
        in.bias.var.value().data()[(h * gates + 1) * dim + c] =
            cell == RnnCell::lstm ? 1 : 3 + 3 * static_cast<float>(c) / static_cast<float>(dim);
  }
  static RnnCell cell_of(const std::string& name) {
    return name == "elman"  ? RnnCell::elman
           : name == "lstm" ? RnnCell::lstm
           : name == "gru"  ? RnnCell::gru
                            : RnnCell::slstm;
  }

  void visit(const ParameterVisitor& p) override {
    p("in", in);
    feedback.visit(p);
    p("out", out);
  }
  StateSpec state_spec() const override { return {{"state", {options.heads, kernels::rnn_states(cell), dim}}}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Rnn>("rnn", batch);
    const Context& c = *batch.context;
    return out(rnn(cell, in(x, c), feedback.matrix(), options.heads, batch, 0), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (2 * d * d * (gates + 1) + d * gates * (2 * dim + 8)) + feedback.flops();
  }

  // One channel's gates p (with `fed`, the feedback's part of the last one) and its states h, c, n, m.
  void step(const double* p, double fed, double* s, int64_t stride) const {
    using naive::sigmoid;
    double &h = s[0], *c = s + stride, *n = s + 2 * stride, *m = s + 3 * stride;
    if (cell == RnnCell::elman) h = std::tanh(p[0]);
    if (cell == RnnCell::gru) {
      const double z = sigmoid(p[1]);
      h = (1 - z) * std::tanh(p[2] + (sigmoid(p[0]) - 1) * fed) + z * h;
    }
    if (cell == RnnCell::lstm) {
      *c = sigmoid(p[1]) * *c + sigmoid(p[0]) * std::tanh(p[2]);
      h = sigmoid(p[3]) * std::tanh(*c);
    }
    if (cell == RnnCell::slstm) {
      const double a = *m - naive::softplus(-p[1]);
      *m = std::fmax(a, p[0]);
      *c = std::exp(a - *m) * *c + std::exp(p[0] - *m) * std::tanh(p[2]);
      *n = std::exp(a - *m) * *n + std::exp(p[0] - *m);
      h = sigmoid(p[3]) * *c / *n;
    }
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::linear(run.x, run.w, "in"), r = feedback.naive(run.w);
    naive::Matrix& s = run.state["state"];
    if (!s.rows) {
      s = naive::Matrix(options.heads, kernels::rnn_states(cell) * dim);
      for (int64_t h = 0; h < options.heads && cell == RnnCell::slstm; ++h)
        for (int64_t c = 0; c < dim; ++c) s(h, 3 * dim + c) = -INFINITY;
    }
    naive::Matrix y(x.rows, options.heads * dim);
    for (int64_t t = 0; t < x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h) {
        const std::vector<double> before(&s(h, 0), &s(h, 0) + dim);
        for (int64_t c = 0; c < dim; ++c) {
          double p[4], fed = 0;
          for (int64_t g = 0; g < gates; ++g) {
            fed = 0;
            for (int64_t j = 0; j < dim; ++j) fed += before[j] * r(h * dim + j, g * dim + c);
            p[g] = x(t, (h * gates + g) * dim + c) + fed;
          }
          step(p, fed, &s(h, c), dim);
          y(t, h * dim + c) = s(h, c);
        }
      }
    return naive::linear(y, run.w, "out");
  }

  Options options;
  int64_t dim;
  RnnCell cell;
  int64_t gates;
  Linear in, out;
  MaskedFeedback feedback;
};

}  // namespace

void register_rnn(Registry<Mixer>& r) {
  r.add<Rnn>("rnn");
}

}  // namespace sennit::mixers
