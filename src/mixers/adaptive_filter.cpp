// Attention as an Adaptive Filter (Racioppo, arXiv:2509.04154), the isotropic form: tokens are noisy observations of a
// state that turns and fades, dz = (-a I + turns) z dt + noise. Key and value of token j are carried to the time of i,
// l = i - j tokens later, and count by how sure they are and how well the carried key fits the query:
//   s_l = sigma^2 (1 - e^(-2al)) / 2a + eta^2 e^(-2al) + gamma^2
//   w_ij = 1 / (s_l + |q_i - e^(-al) R^l k_j|^2 / nu),   y_i = W_o concat_h sum_j w_ij e^(-al) R^l v_j / sum_j w_ij
// or, with exponential weights, w_ij = exp(-|q_i - e^(-al) R^l k_j|^2 / (nu s_l)) / s_l. Without fading and noise of
// the state, and with queries and keys of length 1, that is softmax attention with rotary positions. R turns pairs of
// channels by the angles of rotary embedding, or by learned ones; a, sigma, eta and gamma are learned for each head.
// The diagonal form learns them for each pair of channels c, and every pair has a precision of its own:
//   D_ij = sum_c |q_i - e^(-al) R^l k_j|_c^2 / s_lc,   w_ijc = 1 / (s_lc (1 + D_ij / nu)) or exp(-D_ij / nu) / s_lc
#include <cmath>

#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/products.h"
#include "sequence/lag_attention.h"
#include "sequence/polar.h"
#include "sequence/rope_scaling.h"
#include "sequence/rotary.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct AdaptiveFilter : Heads {
  struct Options {
    int64_t heads = 4;
    double nu = 0, base = 10000;
    std::string weights = "robust", angles = "fixed", form = "isotropic";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"nu", &nu, "how far a key may be off before it counts less; 0: d_model / heads", {.min = 0, .max = 1e6}},
              {"base", &base, "of the angles that a token's time turns by", {.min = 1, .max = 1e12}},
              {"weights", &weights, "how they fall with what a key is off", {.choices = {"robust", "exponential"}}},
              {"angles", &angles, "whether they are learned from there", {.choices = {"fixed", "learned"}}},
              {"form",
               &form,
               "what has dynamics of its own: a head, or a pair of its channels",
               {.choices = {"isotropic", "diagonal"}}}};
    }
  };
  static Info info() {
    return {
        .title = "Adaptive filter attention",
        .paper = "arXiv:2509.04154",
        .equation = "w_ij = 1 / (s_l + |q_i - e^(-al) R^l k_j|^2 / nu), y_i = sum_j w_ij e^(-al) R^l v_j / sum_j w_ij",
        .cost = "O(n^2 d)",
        .settings = {{"two heads", R"({"heads": 2, "nu": 3, "base": 100})"},
                     {"exponential weights", R"({"weights": "exponential", "angles": "learned", "base": 20})"},
                     {"diagonal form", R"({"form": "diagonal"})"},
                     {"diagonal form with exponential weights",
                      R"({"form": "diagonal", "heads": 2, "weights": "exponential"})"}}};
  }
  AdaptiveFilter(const Dims& d, const Options& o, Rng rng) : Heads("adaptive_filter", d, o.heads, rng), options(o) {
    if (dim % 2) fail({"adaptive_filter", "an even d_model / heads", fmt::format("{}", dim)});
    if (options.nu == 0) options.nu = static_cast<double>(dim);
    turns = rope_frequencies(dim, o.base, {});
    for (const double t : turns) back.push_back(-t);
    if (learned_angles()) {
      Tensor angles({o.heads, dim / 2});
      for (int64_t i = 0; i < angles.elements(); ++i)
        angles.data()[i] = static_cast<float>(turns[static_cast<size_t>(i % (dim / 2))]);
      angle.init(angles);
    }
    Tensor rates({o.heads * entries()});  // from memories of 4 tokens to some hundreds
    for (int64_t i = 0; i < rates.elements(); ++i)
      rates.data()[i] = static_cast<float>(std::log(
          std::expm1(std::exp2(-2.0 - 6.0 * static_cast<double>(i / entries()) / static_cast<double>(o.heads)))));
    rate.init(rates);
    // softplus of these: sigma^2, eta^2, gamma^2
    sigma.init(Tensor::full(rates.shape(), -2)), eta.init(Tensor::full(rates.shape(), 0)),
        gamma.init(Tensor::full(rates.shape(), 0));
    for (Parameter* p : {&rate, &sigma, &eta, &gamma, &angle}) p->decays = false;
  }
  bool diagonal() const { return options.form == "diagonal"; }
  int64_t entries() const { return diagonal() ? dim / 2 : 1; }  // with dynamics of their own in a head
  bool learned_angles() const { return options.angles == "learned"; }
  LagRule rule() const { return options.weights == "robust" ? LagRule::robust : LagRule::exponential; }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    for (auto [name, x] : {std::pair<const char*, Parameter*>{"rate", &rate},
                           {"sigma", &sigma},
                           {"eta", &eta},
                           {"gamma", &gamma},
                           {"angle", &angle}})
      p(name, *x);
  }
  StateSpec state_spec() const override {
    return {{"k", {1, width()}, Growth::per_token}, {"v", {1, width()}, Growth::per_token}};
  }

  // To what it would be at time 0, or from there, `way` -1.
  Var turned(const Var& x, std::span<const Segment> segments, int way = 1) const {
    if (!learned_angles())
      return rotary(x, segments, {.heads = heads, .dims = dim, .frequencies = way > 0 ? turns : back});
    return polar_turn(x, {Var(Tensor::full({heads}, 1)), scale(angle, static_cast<float>(way)), {}}, segments);
  }
  struct Tables {
    Var spread, fade;  // s_l, or 1 / s_lc, and e^(-al) of distances -reach to reach [2 reach + 1, heads entries]
  };
  Tables tables(int64_t reach) const {
    Tensor distances({2 * reach + 1, 1});
    for (int64_t i = 0; i < distances.elements(); ++i) distances.data()[i] = static_cast<float>(std::abs(i - reach));
    const Var a = softplus(rate), log_fade = scale(matmul(Var(distances), reshape(a, {1, heads * entries()})), -1),
              fade = exp(log_fade);
    const Var filled = complement(log_fade),
              gathered = softplus(sigma) * scale(exp(scale(log(a), -1)), 0.5f);  // sigma^2 / 2a
    const Var noise = multiply_row(filled * filled, gathered) + multiply_row(fade * fade, softplus(eta));
    const Var spread = add_row(noise, softplus(gamma));
    return {diagonal() ? inverse(spread) : spread, fade};
  }
  Var core(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const SeenRows seen = seen_rows({turned(k(x, c), batch.segments), turned(v(x, c), batch.segments)}, batch, 0);
    int64_t longest = 1;
    for (const AttentionSegment& a : seen.segments) longest = std::max(longest, a.keys);
    const Tables t = tables(longest - 1);
    return lag_attention(
        turned(q(x, c), batch.segments), seen.part(0), seen.part(1), t.spread, t.fade, seen.segments,
        {.heads = heads, .rule = rule(), .scale = static_cast<float>(1 / options.nu), .pairs = diagonal()});
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<AdaptiveFilter>("adaptive_filter", batch);
    return out(turned(core(x, batch), batch.segments, -1), *batch.context);
  }
  // The core is carried to time 0.
  Var output(const Var&, const Var& carried, const Context& c) override {
    const Segment whole[] = {{0, carried.rows(), 0, nullptr}};
    return out(turned(carried, whole, -1), c);
  }
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    if (diagonal()) return std::nullopt;
    const int64_t n = x.rows();
    const Segment whole[] = {{0, n, 0, nullptr}};
    const Tensor qs = turned(q(x, c), whole).value(), ks = turned(k(x, c), whole).value();
    const Tables t = tables(n - 1);
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), turned(v(x, c), whole).value()};
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        float* const row = m.weights.data() + (h * n + i) * n;
        std::vector<double> logs, fades;
        for (int64_t j = 0; j <= i; ++j) {
          const int64_t lag = (n - 1 + i - j) * heads + h;
          const double fade = t.fade.value().data()[lag];
          double apart = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            apart += std::pow(qs.data()[i * width() + p] - fade * ks.data()[j * width() + p], 2);
          const double spread = t.spread.value().data()[lag];
          logs.push_back(rule() == LagRule::robust ? -std::log(spread + apart / options.nu)
                                                   : -std::log(spread) - apart / (options.nu * spread));
          fades.push_back(fade);
        }
        naive::softmax(logs);
        for (int64_t j = 0; j <= i; ++j) row[j] = static_cast<float>(logs[j] * fades[j]);
      }
    return m;
  }
  int64_t flops(int64_t n) const override {
    const int64_t of_pair = diagonal() ? 8 * width() : 4 * width() + 6 * heads;
    return map_flops(n) + n * (n + 1) / 2 * of_pair + n * (12 * width() + 20 * heads * entries());
  }

  void naive_turn(naive::Matrix& x, const naive::Weights& w, int64_t position, double way) const {
    for (int64_t i = 0; i < x.rows; ++i)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t p = 0; p < dim / 2; ++p) {
          const double rate_of_pair =
                           learned_angles()
                               ? w.at("angle")(h, p)
                               : std::pow(options.base, -2.0 * static_cast<double>(p) / static_cast<double>(dim)),
                       turn = way * static_cast<double>(position + i) * rate_of_pair;
          double &a = x(i, h * dim + p), &b = x(i, h * dim + dim / 2 + p);
          const double old = a;
          a = old * std::cos(turn) - b * std::sin(turn), b = old * std::sin(turn) + b * std::cos(turn);
        }
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k"),
                  vs = naive::linear(run.x, run.w, "v");
    for (naive::Matrix* m : {&qs, &ks, &vs}) naive_turn(*m, run.w, run.position, 1);
    ks = naive::with_kept(run.state["k"], ks), vs = naive::with_kept(run.state["v"], vs);
    const int64_t offset = ks.rows - qs.rows;
    naive::Matrix y(qs.rows, width());
    for (int64_t h = 0; h < heads; ++h) {
      naive::Matrix fade(ks.rows, dim), precision(ks.rows, dim);  // of distances, for each channel
      for (int64_t p = 0; p < dim; ++p) {
        const auto of = [&](const char* name) {
          return naive::softplus(run.w.at(name).a[h * entries() + p % (dim / 2) % entries()]);
        };
        const double a = of("rate"), sigma2 = of("sigma"), eta2 = of("eta"), gamma2 = of("gamma");
        for (int64_t l = 0; l < ks.rows; ++l) {
          fade(l, p) = std::exp(-a * static_cast<double>(l));
          const double left = fade(l, p) * fade(l, p);
          precision(l, p) = 1 / (sigma2 * (1 - left) / (2 * a) + eta2 * left + gamma2);
        }
      }
      for (int64_t i = 0; i < qs.rows; ++i) {
        const int64_t last = i + offset;
        std::vector<double> weights;
        for (int64_t j = 0; j <= last; ++j) {
          double apart = 0;
          for (int64_t p = 0; p < dim; ++p)
            apart += precision(last - j, p) * std::pow(qs(i, h * dim + p) - fade(last - j, p) * ks(j, h * dim + p), 2);
          weights.push_back(rule() == LagRule::robust ? -std::log1p(apart / options.nu) : -apart / options.nu);
        }
        naive::softmax(weights);
        for (int64_t p = 0; p < dim; ++p) {
          double total = 0, sum = 0;
          for (int64_t j = 0; j <= last; ++j) {
            const double weight = weights[j] * precision(last - j, p);
            total += weight, sum += weight * fade(last - j, p) * vs(j, h * dim + p);
          }
          y(i, h * dim + p) = sum / total;
        }
      }
    }
    naive_turn(y, run.w, run.position, -1);
    return naive::linear(y, run.w, "out");
  }

  Options options;
  std::vector<double> turns, back;
  Parameter rate, sigma, eta, gamma, angle;
};

}  // namespace

void register_adaptive_filter(Registry<Mixer>& r) {
  r.add<AdaptiveFilter>("adaptive_filter");
}

}  // namespace sennit::mixers
