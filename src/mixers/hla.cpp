// Higher-order Linear Attention (Zhang et al., arXiv:2510.27258), second order: o = ((W W^T) * L) V with W = L * (Q
// K^T), L lower triangular, from running sums of a head:
//   S_t = g S_{t-1} + k_t k_t^T,   C_t = g C_{t-1} + q_t v_t^T,   G_t = g^2 G_{t-1} + k_t (k_t^T g C_{t-1})
//   o_t = (S_t C_t - G_t)^T q_t,   y_t = W_o rmsnorm(o_t)
// Each of the sums is a gated linear attention with other operands. With a decay, G must fade by g^2: it takes from the
// product of S_t and C_t, which both fade, what a token would see of its own future.
#include <cmath>

#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Hla : Mixer {
  static constexpr double kNormEpsilon = 1e-5;

  struct Options {
    int64_t heads = 4;
    bool decay = true;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"decay", &decay, "fade by 1 - 2^(-5 - head) a token, as retention does"}};
    }
  };
  static Info info() {
    return {.title = "Higher-order linear attention",
            .paper = "arXiv:2510.27258",
            .equation = "o_t = (S_t C_t - G_t)^T q_t with running sums of k k^T, q v^T and k (k^T C)",
            .cost = "O(n d^2 / heads)",
            .settings = {{"no decay", R"({"decay": false})"}}};
  }

  Hla(const Dims& d, const Options& o, Rng rng) : options(o), dim(d.d_model / o.heads) {
    if (d.d_model % o.heads)
      fail({"hla", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", o.heads)});
    q = Linear(d.d_model, d.d_model, rng.fork("q"));
    k = Linear(d.d_model, d.d_model, rng.fork("k"));
    v = Linear(d.d_model, d.d_model, rng.fork("v"));
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    norm.init(Tensor::full({d.d_model}, 1));
    norm.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    p("q", q);
    p("k", k);
    p("v", v);
    p("out", out);
    p("norm", norm);
  }
  // C stands twice: it is read after a token writes to it, and before.
  StateSpec state_spec() const override {
    const Shape square{options.heads, dim, dim};
    return {{"S", square}, {"C", square}, {"C_before", square}, {"G", square}};
  }
  static double fade(int64_t head) { return std::log1p(-std::exp2(-5.0 - static_cast<double>(head))); }
  Var log_decay(int64_t n, double times) const {
    if (!options.decay) return {};
    Tensor g({n, options.heads});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < options.heads; ++h) g.data()[i * options.heads + h] = static_cast<float>(times * fade(h));
    return Var(g);
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Hla>("hla", batch);
    const Context& c = *batch.context;
    const float unit = 1 / std::sqrt(static_cast<float>(dim));
    const Var qs = q(x, c), ks = k(x, c), vs = v(x, c), g = log_decay(x.rows(), 1), g2 = log_decay(x.rows(), 2);
    const auto sum = [&](const Var& read, const Var& key, const Var& value, const Var& decay, size_t field,
                         bool before) {
      return gla(read, key, value, decay, batch,
                 {.heads = options.heads, .scale = unit, .field = field, .reads_before = before});
    };
    const Var all = sum(sum(qs, ks, ks, g, 0, false), qs, vs, g, 1, false);
    Var seen = sum(ks, qs, vs, g, 2, true);
    if (options.decay) seen = multiply_groups(seen, exp(g));
    return output(x, all - sum(qs, ks, seen, g2, 3, false), c);
  }
  Var output(const Var&, const Var& core, const Context& c) override {
    return out(rmsnorm(core, norm, {.epsilon = static_cast<float>(kNormEpsilon)}), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (8 * d * d + 4 * d * dim * (options.decay ? 6 : 4) + 8 * d);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k"),
                        vs = naive::linear(run.x, run.w, "v");
    naive::Matrix *S = &run.state["S"], *C = &run.state["C"], *before = &run.state["C_before"], *G = &run.state["G"];
    if (!S->rows)
      for (auto* m : {S, C, before, G}) *m = naive::Matrix(options.heads, dim * dim);
    const double unit = 1 / std::sqrt(static_cast<double>(dim));
    naive::Matrix core(run.x.rows, options.heads * dim);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < options.heads; ++h) {
        const double g = options.decay ? std::exp(fade(h)) : 1;
        const auto at = [&](const naive::Matrix& m, int64_t i) { return m(t, h * dim + i); };
        for (int64_t j = 0; j < dim; ++j) {
          double seen = 0;  // k^T g C before this token
          for (int64_t p = 0; p < dim; ++p) seen += unit * at(ks, p) * g * (*before)(h, p * dim + j);
          for (int64_t p = 0; p < dim; ++p) {
            double &s = (*S)(h, p * dim + j), &m = (*C)(h, p * dim + j), &old = (*before)(h, p * dim + j),
                   &cross = (*G)(h, p * dim + j);
            s = g * s + at(ks, p) * at(ks, j);
            m = g * m + at(qs, p) * at(vs, j);
            old = g * old + at(qs, p) * at(vs, j);
            cross = g * g * cross + at(ks, p) * seen;
          }
        }
        for (int64_t j = 0; j < dim; ++j)
          for (int64_t p = 0; p < dim; ++p) {
            double read = -(*G)(h, p * dim + j);
            for (int64_t r = 0; r < dim; ++r) read += unit * (*S)(h, p * dim + r) * (*C)(h, r * dim + j);
            core(t, h * dim + j) += unit * at(qs, p) * read;
          }
      }
    return naive::linear(naive::rmsnorm(core, 1, kNormEpsilon, &run.w.at("norm")), run.w, "out");
  }

  // ((W W^T) * L), with the fading of the paths through both sums.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Tensor qs = q(x, c).value(), ks = k(x, c).value();
    const int64_t n = x.rows(), width = options.heads * dim;
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), v(x, c).value()};
    for (int64_t h = 0; h < options.heads; ++h) {
      const auto product = [&](int64_t i, int64_t s) {
        double sum = 0;
        for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
          sum += double{qs.data()[i * width + p]} * ks.data()[s * width + p];
        return sum;
      };
      const double g = options.decay ? fade(h) : 0;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) {
          double sum = 0;  // over the keys s that stand at or before the query j of the second product
          for (int64_t s = 0; s <= j; ++s)
            sum += product(i, s) * product(j, s) * std::exp(g * static_cast<double>(2 * i - s - j));
          m.weights.data()[(h * n + i) * n + j] = static_cast<float>(sum / static_cast<double>(dim));
        }
    }
    return m;
  }

  Options options;
  int64_t dim;
  Linear q, k, v, out;
  Parameter norm;
};

}  // namespace

void register_hla(Registry<Mixer>& r) {
  r.add<Hla>("hla");
}

}  // namespace sennit::mixers
