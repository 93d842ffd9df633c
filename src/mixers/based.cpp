// Simple linear attention language models balance the recall-throughput tradeoff (BASED, Arora et al.,
// arXiv:2402.18668), section 4.1:
//   y_i = W_o sum_{j<=i} (phi(q_i) . phi(k_j)) v_j / sum_{j<=i} phi(q_i) . phi(k_j),   phi(q) . phi(k) = 1 + s + s^2 /
//   2, s = q . k / sqrt(d')
// the first terms of the softmax's exponential, with few numbers d' a head, so that the sums are a state. The
// architecture puts layers of a small sliding window (softmax with `window`) and short convolutions beside it.
#include <cmath>

#include "mixers/heads.h"
#include "ops/arithmetic.h"
#include "ops/features.h"
#include "ops/maps.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Based : Heads {
  struct Options {
    int64_t heads = 4, feature_dim = 8;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"feature_dim",
               &feature_dim,
               "numbers of a head's queries and keys; the state grows with its square",
               {.min = 1, .max = 64}}};
    }
  };
  static Info info() {
    return {.title = "Taylor linear attention (BASED)",
            .paper = "arXiv:2402.18668",
            .equation = "y_i = sum_j (1 + s_ij + s_ij^2 / 2) v_j / sum_j (1 + s_ij + s_ij^2 / 2)",
            .cost = "O(n d feature_dim^2)"};
  }

  Based(const Dims& d, const Options& o, Rng rng)
      : Heads("based", d, o.heads, rng, o.feature_dim), features(taylor_count(o.feature_dim)) {}
  StateSpec state_spec() const override { return {{"S", {heads, features, dim}}, {"z", {heads, features, 1}}}; }

  Var map(Linear& of, const Var& x, const Context& c) {
    const double root = std::sqrt(std::sqrt(static_cast<double>(key_dim)));
    return taylor_features(scale(of(x, c), static_cast<float>(1 / root)), heads);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Based>("based", batch);
    const Context& c = *batch.context;
    const Var qs = map(q, x, c), ks = map(k, x, c);
    const Var sums = gla(qs, ks, v(x, c), {}, batch, {.heads = heads});
    const Var weights = gla(qs, ks, Var(Tensor::full({x.rows(), heads}, 1)), {}, batch, {.heads = heads, .field = 1});
    return output(x, multiply_groups(sums, exp(scale(log(weights), -1))), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out(), h = heads;
    return n * (4 * d * (d + h * key_dim) + 2 * h * features * (1 + 2 * (dim + 1)) + d);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t f = key_dim;
    const naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k"),
                        vs = naive::linear(run.x, run.w, "v");
    naive::Matrix &S = run.state["S"], &z = run.state["z"];
    if (!S.rows) S = naive::Matrix(heads, features * dim), z = naive::Matrix(heads, features);
    const auto phi = [&](const naive::Matrix& m, int64_t t, int64_t h) {
      std::vector<double> y = {1};
      const double unit = std::pow(static_cast<double>(f), -0.25);
      for (int64_t i = 0; i < f; ++i) y.push_back(unit * m(t, h * f + i));
      for (int64_t i = 1; i <= f; ++i)
        for (int64_t j = i; j <= f; ++j) y.push_back(y[i] * y[j] * (i == j ? std::sqrt(0.5) : 1));
      return y;
    };
    naive::Matrix core(run.x.rows, heads * dim);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const std::vector<double> query = phi(qs, t, h), key = phi(ks, t, h);
        double weight = 0;
        for (int64_t p = 0; p < features; ++p) {
          weight += query[p] * (z(h, p) += key[p]);
          for (int64_t j = 0; j < dim; ++j)
            core(t, h * dim + j) += query[p] * (S(h, p * dim + j) += key[p] * vs(t, h * dim + j));
        }
        for (int64_t j = 0; j < dim; ++j) core(t, h * dim + j) /= weight;
      }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Tensor qs = q(x, c).value(), ks = k(x, c).value();
    const int64_t n = x.rows(), f = key_dim, width = heads * f;
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), v(x, c).value()};
    std::vector<double> row(n);
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double s = 0;
          for (int64_t p = 0; p < f; ++p)
            s += double{qs.data()[i * width + h * f + p]} * ks.data()[j * width + h * f + p];
          s /= std::sqrt(static_cast<double>(f));
          total += row[j] = 1 + s + s * s / 2;
        }
        for (int64_t j = 0; j <= i; ++j) m.weights.data()[(h * n + i) * n + j] = static_cast<float>(row[j] / total);
      }
    return m;
  }

  int64_t features;
};

}  // namespace

void register_based(Registry<Mixer>& r) {
  r.add<Based>("based");
}

}  // namespace sennit::mixers
