// Attention as an Adaptive Filter (Racioppo, arXiv:2509.04154), the isotropic form: tokens are noisy observations of a
// state that turns and fades, dz = (-a I + turns) z dt + noise. Key and value of token j are carried to the time of i,
// l = i - j tokens later, and count by how sure they are and how well the carried key fits the query:
//   s_l = sigma^2 (1 - e^(-2al)) / 2a + eta^2 e^(-2al) + gamma^2
//   w_ij = 1 / (s_l + |q_i - e^(-al) R^l k_j|^2 / nu),   y_i = W_o concat_h sum_j w_ij e^(-al) R^l v_j / sum_j w_ij
// R turns pairs of channels by the angles of rotary embedding; a, sigma, eta and gamma are learned for each head.
#include <cmath>

#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/lag_attention.h"
#include "sequence/rope_scaling.h"
#include "sequence/rotary.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct AdaptiveFilter : Heads {
  struct Options {
    int64_t heads = 4;
    double nu = 0, base = 10000;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"nu", &nu, "how far a key may be off before it counts less; 0: d_model / heads", {.min = 0, .max = 1e6}},
              {"base", &base, "of the angles that a token's time turns by", {.min = 1, .max = 1e12}}};
    }
  };
  static Info info() {
    return {
        .title = "Adaptive filter attention",
        .paper = "arXiv:2509.04154",
        .equation = "w_ij = 1 / (s_l + |q_i - e^(-al) R^l k_j|^2 / nu), y_i = sum_j w_ij e^(-al) R^l v_j / sum_j w_ij",
        .cost = "O(n^2 d)",
        .settings = {{"two heads", R"({"heads": 2, "nu": 3, "base": 100})"}}};
  }
  AdaptiveFilter(const Dims& d, const Options& o, Rng rng) : Heads("adaptive_filter", d, o.heads, rng), options(o) {
    if (dim % 2) fail({"adaptive_filter", "an even d_model / heads", fmt::format("{}", dim)});
    if (options.nu == 0) options.nu = static_cast<double>(dim);
    turns = rope_frequencies(dim, o.base, {});
    for (const double t : turns) back.push_back(-t);
    Tensor rates({o.heads});  // from memories of 4 tokens to some hundreds
    for (int64_t h = 0; h < o.heads; ++h)
      rates.data()[h] = static_cast<float>(
          std::log(std::expm1(std::exp2(-2.0 - 6.0 * static_cast<double>(h) / static_cast<double>(o.heads)))));
    rate.init(rates);
    // softplus of these: sigma^2, eta^2, gamma^2
    sigma.init(Tensor::full({o.heads}, -2)), eta.init(Tensor::full({o.heads}, 0)),
        gamma.init(Tensor::full({o.heads}, 0));
    for (Parameter* p : {&rate, &sigma, &eta, &gamma}) p->decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    for (auto [name, x] :
         {std::pair<const char*, Parameter*>{"rate", &rate}, {"sigma", &sigma}, {"eta", &eta}, {"gamma", &gamma}})
      p(name, *x);
  }
  StateSpec state_spec() const override {
    return {{"k", {1, width()}, Growth::per_token}, {"v", {1, width()}, Growth::per_token}};
  }

  Var turned(const Var& x, std::span<const Segment> segments, std::span<const double> angles) const {
    return rotary(x, segments, {.heads = heads, .dims = dim, .frequencies = angles});
  }
  struct Tables {
    Var spread, fade;  // s_l and e^(-al) of distances -reach to reach [2 reach + 1, heads]
  };
  Tables tables(int64_t reach) const {
    Tensor distances({2 * reach + 1, 1});
    for (int64_t i = 0; i < distances.elements(); ++i) distances.data()[i] = static_cast<float>(std::abs(i - reach));
    const Var a = softplus(rate), log_fade = scale(matmul(Var(distances), reshape(a, {1, heads})), -1),
              fade = exp(log_fade);
    const Var filled = complement(log_fade),
              gathered = softplus(sigma) * scale(exp(scale(log(a), -1)), 0.5f);  // sigma^2 / 2a
    const Var noise = multiply_row(filled * filled, gathered) + multiply_row(fade * fade, softplus(eta));
    return {add_row(noise, softplus(gamma)), fade};
  }
  Var core(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const SeenRows seen =
        seen_rows({turned(k(x, c), batch.segments, turns), turned(v(x, c), batch.segments, turns)}, batch, 0);
    int64_t longest = 1;
    for (const AttentionSegment& a : seen.segments) longest = std::max(longest, a.keys);
    const Tables t = tables(longest - 1);
    return lag_attention(turned(q(x, c), batch.segments, turns), seen.part(0), seen.part(1), t.spread, t.fade,
                         seen.segments,
                         {.heads = heads, .rule = LagRule::robust, .scale = static_cast<float>(1 / options.nu)});
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<AdaptiveFilter>("adaptive_filter", batch);
    return out(turned(core(x, batch), batch.segments, back), *batch.context);
  }
  // The core is carried to time 0.
  Var output(const Var&, const Var& carried, const Context& c) override {
    const Segment whole[] = {{0, carried.rows(), 0, nullptr}};
    return out(turned(carried, whole, back), c);
  }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Tensor qs = turned(q(x, c), whole, turns).value(), ks = turned(k(x, c), whole, turns).value();
    const Tables t = tables(n - 1);
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), turned(v(x, c), whole, turns).value()};
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        float* const row = m.weights.data() + (h * n + i) * n;
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          const int64_t lag = (n - 1 + i - j) * heads + h;
          const double fade = t.fade.value().data()[lag];
          double apart = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            apart += std::pow(qs.data()[i * width() + p] - fade * ks.data()[j * width() + p], 2);
          const double weight = 1 / (t.spread.value().data()[lag] + apart / options.nu);
          total += weight;
          row[j] = static_cast<float>(weight * fade);
        }
        for (int64_t j = 0; j <= i; ++j) row[j] = static_cast<float>(row[j] / total);
      }
    return m;
  }
  int64_t flops(int64_t n) const override {
    return map_flops(n) + 3 * n * (n + 1) * width() + n * (12 * width() + 20 * heads);
  }

  void naive_turn(naive::Matrix& x, int64_t position, double way) const {
    for (int64_t i = 0; i < x.rows; ++i)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t p = 0; p < dim / 2; ++p) {
          const double angle = way * static_cast<double>(position + i) *
                               std::pow(options.base, -2.0 * static_cast<double>(p) / static_cast<double>(dim));
          double &a = x(i, h * dim + p), &b = x(i, h * dim + dim / 2 + p);
          const double old = a;
          a = old * std::cos(angle) - b * std::sin(angle), b = old * std::sin(angle) + b * std::cos(angle);
        }
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k"),
                  vs = naive::linear(run.x, run.w, "v");
    for (naive::Matrix* m : {&qs, &ks, &vs}) naive_turn(*m, run.position, 1);
    ks = naive::with_kept(run.state["k"], ks), vs = naive::with_kept(run.state["v"], vs);
    const int64_t offset = ks.rows - qs.rows;
    naive::Matrix y(qs.rows, width());
    for (int64_t i = 0; i < qs.rows; ++i)
      for (int64_t h = 0; h < heads; ++h) {
        const auto of = [&](const char* name) { return naive::softplus(run.w.at(name).a[h]); };
        double total = 0;
        std::vector<double> sum(dim);
        for (int64_t j = 0; j <= i + offset; ++j) {
          const double a = of("rate"), fade = std::exp(-a * static_cast<double>(i + offset - j));
          double apart = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) apart += std::pow(qs(i, p) - fade * ks(j, p), 2);
          const double spread = of("sigma") * (1 - fade * fade) / (2 * a) + of("eta") * fade * fade + of("gamma");
          const double weight = 1 / (spread + apart / options.nu);
          total += weight;
          for (int64_t p = 0; p < dim; ++p) sum[p] += weight * fade * vs(j, h * dim + p);
        }
        for (int64_t p = 0; p < dim; ++p) y(i, h * dim + p) = sum[p] / total;
      }
    naive_turn(y, run.position, -1);
    return naive::linear(y, run.w, "out");
  }

  Options options;
  std::vector<double> turns, back;
  Parameter rate, sigma, eta, gamma;
};

}  // namespace

void register_adaptive_filter(Registry<Mixer>& r) {
  r.add<AdaptiveFilter>("adaptive_filter");
}

}  // namespace sennit::mixers
