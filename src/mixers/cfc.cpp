// Closed-form Continuous-time Neural Networks (Hasani et al., arXiv:2106.13898), equation 10, with a recurrence of low
// rank and few entries (Leveraging Low-Rank and Sparse Recurrent Connectivity, Tumma et al., arXiv:2310.03915):
//   m_t = tanh(W x_t + R h_{t-1}),   s_t = sigmoid(-f(m_t)),   h_t = s_t tanh(g(m_t)) + (1 - s_t) tanh(k(m_t)),   y_t =
//   W_o h_t R = (A B^T) * M for rank > 0, M a fixed mask with a share of 1 - sparsity ones;   f, g, k are linear
#include <cmath>

#include "mixers/heads.h"
#include "nn/init.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/products.h"
#include "sequence/rnn.h"
#include "tensor/pooled.h"

namespace sennit::mixers {
namespace {

struct Cfc : Mixer {
  struct Options {
    int64_t heads = 4, rank = 0;
    double sparsity = 0;
    Fields fields() {
      return {{"heads", &heads, "heads, each with a recurrence of its own", {.min = 1, .max = 1024}},
              {"rank", &rank, "rank of the recurrence; 0: full", {.min = 0, .max = 4096}},
              {"sparsity", &sparsity, "share of the recurrence's entries that are always 0", {.min = 0, .max = 0.99}}};
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
    if (o.rank > dim)
      fail({"cfc", fmt::format("a rank of at most d_model / heads = {}", dim), fmt::format("{}", o.rank)});
    in = Linear(width, width, rng.fork("in"), {.bias = true});
    out = Linear(width, width, rng.fork("out"), {.scale = d.out_scale});
    const double deviation = 1 / std::sqrt(static_cast<double>(dim));
    if (o.rank) {
      const double part = 1 / std::sqrt(static_cast<double>(o.rank) * std::sqrt(static_cast<double>(dim)));
      left.init(normal_init({width, o.rank}, part, rng.fork("left")));
      right.init(normal_init({width, o.rank}, part, rng.fork("right")));
    } else {
      feedback.init(normal_init({width, dim}, deviation, rng.fork("feedback")));
    }
    heads_of_m.init(normal_init({width, 3 * dim}, deviation, rng.fork("heads")));
    shift.init(Tensor::zeros({3 * width}));
    shift.decays = false;
    Tensor open({width, dim});
    Rng draw = rng.fork("mask");
    for (float& x : open.span()) x = draw.uniform() < o.sparsity ? 0 : 1;
    mask = Var(open);
  }
  void visit(const ParameterVisitor& p) override {
    p("in", in);
    p("out", out);
    for (auto [name, x] : {std::pair<const char*, Parameter*>{"left", &left},
                           {"right", &right},
                           {"feedback", &feedback},
                           {"heads", &heads_of_m},
                           {"shift", &shift}})
      p(name, *x);
  }
  StateSpec state_spec() const override { return {{"h", {options.heads, 1, dim}}}; }

  // R of all heads [d, dim], below each other.
  Var recurrence() const {
    if (!options.rank) return options.sparsity > 0 ? feedback.var * mask : feedback.var;
    Pooled<Var> parts;
    for (int64_t h = 0; h < options.heads; ++h)
      parts.push_back(matmul(rows(left, h * dim, dim), rows(right, h * dim, dim), {.transpose_b = true}));
    return concat_rows(parts) * mask;
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Cfc>("cfc", batch);
    const Context& c = *batch.context;
    const Var both[] = {recurrence(), heads_of_m};
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
    return n * (4 * width * width + width * (4 * (2 * dim + 8) + 3)) + width * dim * (2 * options.rank + 1);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix x = naive::linear(run.x, run.w, "in"), &all = run.w.at("heads"), &b = run.w.at("shift");
    naive::Matrix r(width, dim);
    for (int64_t i = 0; i < width; ++i)
      for (int64_t c = 0; c < dim; ++c) {
        if (options.rank)
          for (int64_t p = 0; p < options.rank; ++p)
            r(i, c) += run.w.at("left")(i, p) * run.w.at("right")(i / dim * dim + c, p);
        else
          r(i, c) = run.w.at("feedback")(i, c);
        r(i, c) *= mask.value().data()[i * dim + c];
      }
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
  Parameter left, right, feedback, heads_of_m, shift;
  Var mask;
};

}  // namespace

void register_cfc(Registry<Mixer>& r) {
  r.add<Cfc>("cfc");
}

}  // namespace sennit::mixers
