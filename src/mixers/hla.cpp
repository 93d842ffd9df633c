// Higher-order Linear Attention (Zhang et al., arXiv:2510.27258): products of W = L * (Q K^T), L lower triangular, from
// running sums of a head. "symmetric", o = ((W W^T) * L) V:
//   S_t = g S_{t-1} + k_t k_t^T,   C_t = g C_{t-1} + q_t v_t^T,   G_t = g^2 G_{t-1} + k_t (k_t^T g C_{t-1})
//   o_t = (S_t C_t - G_t)^T q_t,   y_t = W_o rmsnorm(o_t)
// "asymmetric", o = W W V, is linear attention twice (section 6), and "third", o = ((W W^T) * L) W V, the symmetric
// form of what linear attention says (section 7). `divide`: by what the same product says of ones (section 3, m and H),
// with queries and keys made positive so that this is a sum of weights, and no norm. Each of the sums is a gated linear
// attention with other operands. With a decay, G must fade by g^2: it takes from the product of S_t and C_t, which both
// fade, what a token would see of its own future.
#include <cmath>

#include "mixers/heads.h"
#include "nn/activation.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"

namespace sennit::mixers {
namespace {

struct Hla : Heads {
  static constexpr double kNormEpsilon = 1e-5;

  struct Options {
    int64_t heads = 4;
    bool decay = true, divide = false;
    double keep = 0;
    std::string form = "symmetric";
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"decay", &decay, "fade by 1 - 2^(-5 - head) a token, as retention does"},
              {"keep", &keep, "fade by this number a token in every head instead; 0: no", {.min = 0, .max = 1}},
              {"form",
               &form,
               "which product of attention matrices is meant",
               {.choices = {"symmetric", "asymmetric", "third"}}},
              {"divide", &divide, "divide by the sum of the weights, of positive queries and keys, and no norm"}};
    }
  };
  static Info info() {
    return {.title = "Higher-order linear attention",
            .paper = "arXiv:2510.27258",
            .equation = "o_t = (S_t C_t - G_t)^T q_t with running sums of k k^T, q v^T and k (k^T C)",
            .cost = "O(n d^2 / heads)",
            .settings = {{"no decay", R"({"decay": false})"},
                         {"asymmetric", R"({"form": "asymmetric"})"},
                         {"asymmetric, divided", R"({"form": "asymmetric", "divide": true})"},
                         {"third order", R"({"form": "third", "keep": 0.9})"},
                         {"divided", R"({"divide": true})"}}};
  }

  Hla(const Dims& d, const Options& o, Rng rng) : Heads("hla", d, o.heads, rng), options(o) {
    if (o.divide && o.form == "third")
      fail({"hla",
            "form symmetric or asymmetric to divide: of third order, sums of weights grow with n^3 and differences "
            "of them lose too many digits",
            "third"});
    if (!o.divide) norm.init(Tensor::full({d.d_model}, 1));
    norm.decays = false;
  }

  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("norm", norm);
  }
  bool symmetric() const { return options.form != "asymmetric"; }
  bool third() const { return options.form == "third"; }
  // C stands twice: it is read after a token writes to it, and before. The sums of weights have sums of their own.
  StateSpec state_spec() const override {
    StateSpec spec;
    if (symmetric()) spec.push_back({"S", {heads, dim, dim}});
    for (const char* of : {"", "_ones"}) {
      if (*of && !options.divide) break;
      const Shape shape{heads, dim, *of ? 1 : dim};
      for (const char* name : {"P", "E"})
        if (!symmetric() || (third() && *name == 'P')) spec.push_back({name + std::string(of), shape});
      for (const char* name : {"C", "C_before", "G"})
        if (symmetric()) spec.push_back({name + std::string(of), shape});
    }
    return spec;
  }
  double fade(int64_t head) const {
    return options.keep > 0 ? std::log(options.keep) : std::log1p(-std::exp2(-5.0 - static_cast<double>(head)));
  }
  Var log_decay(int64_t n, double times) const {
    if (!options.decay) return {};
    Tensor g({n, heads});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t h = 0; h < heads; ++h) g.data()[i * heads + h] = static_cast<float>(times * fade(h));
    return Var(g);
  }
  double unit() const { return 1 / std::sqrt(static_cast<double>(dim)); }

  // The operands of one batch; `field` is the next state that no sum has taken.
  struct Sums {
    const Hla& mixer;
    const Batch& batch;
    Var q, k, g, g2, q_s;  // q_s: queries times S
    size_t field = 0;

    Var sum(const Var& read, const Var& key, const Var& value, const Var& decay, bool before = false) {
      return gla(
          read, key, value, decay, batch,
          {.heads = mixer.heads, .scale = static_cast<float>(mixer.unit()), .field = field++, .reads_before = before});
    }
    Var product(Var values) {
      if (!mixer.symmetric() || mixer.third()) values = sum(q, k, values, g);
      if (!mixer.symmetric()) return sum(q, k, values, g);
      const Var all = sum(q_s, q, values, g);
      Var seen = sum(k, q, values, g, true);
      if (g) seen = multiply_groups(seen, exp(g));
      return all - sum(q, k, seen, g2);
    }
  };

  Var mapped(Linear& map, const Var& x, const Context& c) const {
    return options.divide ? activation("elu", map(x, c)) : map(x, c);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Hla>("hla", batch);
    const Context& c = *batch.context;
    Sums sums{*this, batch, mapped(q, x, c), mapped(k, x, c), log_decay(x.rows(), 1), log_decay(x.rows(), 2), {}};
    if (symmetric()) sums.q_s = sums.sum(sums.q, sums.k, sums.k, sums.g);
    const Var core = sums.product(v(x, c));
    if (!options.divide) return output(x, core, c);
    const Var weights = sums.product(Var(Tensor::full({x.rows(), heads}, 1)));
    return output(x, multiply_groups(core, inverse(weights)), c);
  }
  Var output(const Var&, const Var& core, const Context& c) override {
    return out(options.divide ? core : rmsnorm(core, norm, {.epsilon = static_cast<float>(kNormEpsilon)}), c);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = width(), sums = symmetric() ? (third() ? 4 : 3) : 2;
    const int64_t columns = sums * (dim + (options.divide ? 1 : 0)) + (symmetric() ? dim : 0);
    return map_flops(n) + n * (d * columns * (options.decay ? 6 : 4) + 8 * d);
  }

  // One head's sums at one token, in double: `at` finds its state [dim, columns] by name.
  struct NaiveHead {
    const double *q, *k;
    double g, unit;
    int64_t dim;

    std::vector<double> read(const double* by, const double* state, int64_t columns) const {
      std::vector<double> y(columns);
      for (int64_t p = 0; p < dim; ++p)
        for (int64_t j = 0; j < columns; ++j) y[j] += unit * by[p] * state[p * columns + j];
      return y;
    }
    void write(double* state, double fading, const double* key, const std::vector<double>& value) const {
      for (int64_t p = 0; p < dim; ++p)
        for (size_t j = 0; j < value.size(); ++j) {
          double& a = state[p * std::ssize(value) + static_cast<int64_t>(j)];
          a = fading * a + key[p] * value[j];
        }
    }
  };
  template <class At>
  std::vector<double> naive_product(const NaiveHead& head, std::vector<double> value, const std::string& of,
                                    At&& at) const {
    const int64_t columns = std::ssize(value);
    for (const char* name : {"P", "E"})
      if (!symmetric() || (third() && *name == 'P')) {
        double* sum = at(name + of, columns);
        head.write(sum, head.g, head.k, value);
        value = head.read(head.q, sum, columns);
      }
    if (!symmetric()) return value;
    double *C = at("C" + of, columns), *before = at("C_before" + of, columns), *G = at("G" + of, columns);
    std::vector<double> seen = head.read(head.k, before, columns);
    for (double& a : seen) a *= head.g;
    head.write(C, head.g, head.q, value);
    head.write(before, head.g, head.q, value);
    head.write(G, head.g * head.g, head.k, seen);
    const std::vector<double> q_s = head.read(head.q, at("S", dim), dim), own = head.read(head.q, G, columns);
    std::vector<double> y = head.read(q_s.data(), C, columns);
    for (int64_t j = 0; j < columns; ++j) y[j] -= own[j];
    return y;
  }
  naive::Matrix naive(NaiveRun& run) const override {
    naive::Matrix qs = naive::linear(run.x, run.w, "q"), ks = naive::linear(run.x, run.w, "k");
    const naive::Matrix vs = naive::linear(run.x, run.w, "v");
    for (auto* m : {&qs, &ks})
      for (double& a : m->a) a = options.divide ? naive::activation("elu", a) : a;
    naive::Matrix core(run.x.rows, width());
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const auto at = [&](const std::string& name, int64_t columns) {
          naive::Matrix& m = run.state[name];
          if (!m.rows) m = naive::Matrix(heads, dim * columns);
          return m.a.data() + h * dim * columns;
        };
        const NaiveHead head{&qs(t, h * dim), &ks(t, h * dim), options.decay ? std::exp(fade(h)) : 1, unit(), dim};
        if (symmetric()) head.write(at("S", dim), head.g, head.k, {head.k, head.k + dim});
        const double* value = vs.a.data() + t * width() + h * dim;
        const std::vector<double> y = naive_product(head, {value, value + dim}, "", at);
        const double total = options.divide ? naive_product(head, {1.0}, "_ones", at)[0] : 1;
        for (int64_t j = 0; j < dim; ++j) core(t, h * dim + j) = y[j] / total;
      }
    if (!options.divide) core = naive::rmsnorm(core, 1, kNormEpsilon, &run.w.at("norm"));
    return naive::linear(core, run.w, "out");
  }

  // The products of matrices as they are written, with the fading of the paths through the sums.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Tensor qs = mapped(q, x, c).value(), ks = mapped(k, x, c).value();
    const int64_t n = x.rows();
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), v(x, c).value()};
    for (int64_t h = 0; h < heads; ++h) {
      const double g = options.decay ? fade(h) : 0;
      std::vector<double> plain(n * n), one(n * n), all(n * n);  // q k; faded; the product
      for (int64_t i = 0; i < n; ++i)
        for (int64_t s = 0; s <= i; ++s) {
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            plain[i * n + s] += unit() * qs.data()[i * width() + p] * ks.data()[s * width() + p];
          one[i * n + s] = plain[i * n + s] * std::exp(g * static_cast<double>(i - s));
        }
      if (symmetric()) {
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j <= i; ++j)  // over the keys s that stand at or before the query j of the second product
            for (int64_t s = 0; s <= j; ++s)
              all[i * n + j] += one[i * n + s] * plain[j * n + s] * std::exp(g * static_cast<double>(i - j));
      } else {
        all = one;
      }
      if (!symmetric() || third()) all = lower_product(all, one, n);
      for (int64_t i = 0; i < n; ++i) {
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) total += all[i * n + j];
        for (int64_t j = 0; j <= i; ++j)
          m.weights.data()[(h * n + i) * n + j] = static_cast<float>(all[i * n + j] / (options.divide ? total : 1));
      }
    }
    return m;
  }
  static std::vector<double> lower_product(const std::vector<double>& a, const std::vector<double>& b, int64_t n) {
    std::vector<double> y(a.size());
    for (int64_t i = 0; i < n; ++i)
      for (int64_t s = 0; s <= i; ++s)
        for (int64_t j = 0; j <= s; ++j) y[i * n + j] += a[i * n + s] * b[s * n + j];
    return y;
  }

  Options options;
  Parameter norm;
};

}  // namespace

void register_hla(Registry<Mixer>& r) {
  r.add<Hla>("hla");
}

}  // namespace sennit::mixers
