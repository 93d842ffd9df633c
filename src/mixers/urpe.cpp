// Your Transformer May Not be as Powerful as You Expect (Luo et al., arXiv:2205.13401), equation 6, universal relative
// positions:
//   y_i = W_o concat_h sum_j softmax_j(q_i . k_j / sqrt(K) + b_{j-i}) c_{j-i} V_h x_j
// b and c are learned for distances under `length`, further ones count as the furthest. With c, rows need not sum to
// one, so that equal tokens can be told apart by where they stand; c = 1 at the start is attention with relative
// biases.
#include <cmath>

#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "sequence/lag_attention.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Urpe : Heads {
  struct Options {
    int64_t heads = 4, length = 128;
    bool gains = true;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"length", &length, "learned distances on a side", {.min = 1, .max = 1 << 24}},
              {"gains", &gains, "multiply by c after the softmax; false is attention with relative biases"}};
    }
  };
  static Info info() {
    return {.title = "Universal relative positions (URPE)",
            .paper = "arXiv:2205.13401",
            .equation = "y_i = sum_j softmax_j(q_i k_j / sqrt(K) + b_{j-i}) c_{j-i} v_j",
            .cost = "O(n^2 d)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"near", R"({"length": 9, "heads": 2})"}, {"relative biases", R"({"gains": false})"}}};
  }
  Urpe(const Dims& d, const Options& o, Rng rng) : Heads("urpe", d, o.heads, rng), options(o) {
    const Shape shape{2 * o.length - 1, o.heads};
    bias.init(Tensor::zeros(shape));
    bias.decays = gain.decays = false;
    if (o.gains)
      gain.init(Tensor::full(shape, 1));
    else
      ones = Var(Tensor::full(shape, 1));
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("bias", bias);
    p("gain", gain);
  }
  StateSpec state_spec() const override {
    return {{"k", {1, width()}, Growth::per_token}, {"v", {1, width()}, Growth::per_token}};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Urpe>("urpe", batch);
    const Context& c = *batch.context;
    const SeenRows seen = seen_rows({k(x, c), v(x, c)}, batch, 0);
    const Var core = lag_attention(
        q(x, c), seen.part(0), seen.part(1), bias, options.gains ? gain.var : ones, seen.segments,
        {.heads = heads, .scale = 1 / std::sqrt(static_cast<float>(dim)), .causal = batch.pattern == Pattern::causal});
    return output(x, core, c);
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t) const override {
    return map_flops(n) + 4 * (pattern == Pattern::causal ? n * (n + 1) / 2 : n * n) * width();
  }

  int64_t place(int64_t distance) const {
    return options.length - 1 + std::clamp(distance, 1 - options.length, options.length - 1);
  }
  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix qs = naive::linear(run.x, run.w, "q"), &b = run.w.at("bias");
    const naive::Matrix ks = naive::with_kept(run.state["k"], naive::linear(run.x, run.w, "k"));
    const naive::Matrix vs = naive::with_kept(run.state["v"], naive::linear(run.x, run.w, "v"));
    const int64_t offset = ks.rows - qs.rows;
    naive::Matrix core(qs.rows, width());
    std::vector<double> weights(ks.rows);
    for (int64_t i = 0; i < qs.rows; ++i)
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t j = 0; j < ks.rows; ++j) {
          double s = 0;
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p) s += qs(i, p) * ks(j, p);
          const bool hidden = run.pattern == Pattern::causal && j > i + offset;
          weights[j] = hidden ? -INFINITY : s / std::sqrt(static_cast<double>(dim)) + b(place(j - i - offset), h);
        }
        naive::softmax(weights);
        for (int64_t j = 0; j < ks.rows; ++j)
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            core(i, p) += weights[j] * (options.gains ? run.w.at("gain")(place(j - i - offset), h) : 1) * vs(j, p);
      }
    return naive::linear(core, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows();
    const Tensor qs = q(x, c).value(), ks = k(x, c).value();
    ImplicitMatrix m{Tensor::zeros({heads, n, n}), v(x, c).value()};
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < n; ++i) {
        std::vector<double> weights(i + 1);
        for (int64_t j = 0; j <= i; ++j) {
          for (int64_t p = h * dim; p < (h + 1) * dim; ++p)
            weights[j] += double{qs.data()[i * width() + p]} * ks.data()[j * width() + p];
          weights[j] = weights[j] / std::sqrt(static_cast<double>(dim)) + bias.value().data()[place(j - i) * heads + h];
        }
        naive::softmax(weights);
        for (int64_t j = 0; j <= i; ++j)
          m.weights.data()[(h * n + i) * n + j] =
              static_cast<float>(weights[j]) * (options.gains ? gain.value().data()[place(j - i) * heads + h] : 1);
      }
    return m;
  }

  Options options;
  Parameter bias, gain;
  Var ones;
};

}  // namespace

void register_urpe(Registry<Mixer>& r) {
  r.add<Urpe>("urpe");
}

}  // namespace sennit::mixers
