// Latte: Latent Attention for Linear Time Transformers (Dolga et al., arXiv:2402.17512), equations 7 to 12:
//   y_t = sum_l softmax_l(q_t) sum_{s<=t} softmax_{s<=t}(k_s[l]) v_s
// Each latent l holds a mean of the values, weighted by a softmax over all tokens so far (of the whole sequence where
// it reads both ways); a token mixes the latents. One latent a head is attention as a recurrent network with one
// learned query (Aaren, Feng et al., arXiv:2405.13956: its scores q . W_k x are linear in x), and one channel a head
// with a sigmoid gate is AFT-simple (Zhai et al., arXiv:2105.14103, equation 2 with w = 0).
#include <cmath>

#include "mixers/mixer.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "sequence/recurrences.h"
#include "sequence/running.h"
#include "sequence/whole.h"

namespace sennit::mixers {
namespace {

struct Latte : Mixer {
  struct Options {
    int64_t heads = 4, latents = 16;
    bool channelwise = false, gate = false;
    Fields fields() {
      return {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
              {"latents", &latents, "latents a head", {.min = 1, .max = 4096}},
              {"channelwise", &channelwise, "every channel is a head of its own"},
              {"gate", &gate, "multiply by sigmoid(W_g x)"}};
    }
  };
  static Info info() {
    return {.title = "Latent attention",
            .paper = "arXiv:2402.17512",
            .equation = "y_t = sum_l softmax_l(q_t) sum_{s<=t} softmax_{s<=t}(k_s[l]) v_s",
            .cost = "O(n d latents)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"Aaren", R"({"latents": 1})"},
                         {"AFT-simple", R"({"latents": 1, "channelwise": true, "gate": true})"}}};
  }

  Latte(const Dims& d, Options o, Rng rng) : options(o) {
    if (o.channelwise) options.heads = d.d_model;
    if (d.d_model % options.heads)
      fail({"latte", fmt::format("heads that divide d_model = {}", d.d_model), fmt::format("heads = {}", o.heads)});
    dim = d.d_model / options.heads;
    const int64_t latents = options.heads * o.latents;
    if (o.latents > 1) q = Linear(d.d_model, latents, rng.fork("q"));
    k = Linear(d.d_model, latents, rng.fork("k"));
    v = Linear(d.d_model, d.d_model, rng.fork("v"));
    out = Linear(d.d_model, d.d_model, rng.fork("out"), {.scale = d.out_scale});
    if (o.gate) gate = Linear(d.d_model, d.d_model, rng.fork("gate"));
  }

  void visit(const ParameterVisitor& p) override {
    if (options.latents > 1) p("q", q);
    p("k", k);
    p("v", v);
    p("out", out);
    if (options.gate) p("gate", gate);
  }
  StateSpec state_spec() const override {
    const Shape means = one_each() ? Shape{1, options.heads} : Shape{options.heads, options.latents, dim};
    return {{"means", means}, {"log_sum", {1, options.heads * options.latents}}};
  }
  bool one_each() const { return dim == 1 && options.latents == 1; }

  Var shares(const Var& x, const Context& c) {
    const int64_t heads = options.heads;
    if (options.latents == 1) return Var(Tensor::full({x.rows(), heads}, 1));
    const Var logits = q(x, c);
    return reshape(softmax(reshape(logits, {x.rows() * heads, options.latents})), logits.shape());
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Latte>("latte", batch);
    const Context& c = *batch.context;
    const Var values = v(x, c);
    if (batch.pattern == Pattern::bidirectional) return output(x, over_all(x, values, batch), c);
    const RunningSoftmax past = running_softmax(k(x, c), batch, 1);
    const Var core = one_each()
                         ? diagonal_scan(past.weight * values, past.log_decay, batch, 0)
                         : gla(shares(x, c), past.weight, values, past.log_decay, batch, {.heads = options.heads});
    return output(x, core, c);
  }
  Var over_all(const Var& x, const Var& values, const Batch& batch) {
    const Context& c = *batch.context;
    const Var weight = sequence_softmax(k(x, c), batch.segments);
    return one_each() ? sequence_sums(weight * values, batch.segments)
                      : whole_products(shares(x, c), weight, values, batch.segments, options.heads);
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    return out(options.gate ? core * sigmoid(gate(x, c)) : core, c);
  }

  int64_t flops(int64_t n) const override {
    const int64_t d = out.out(), latents = options.heads * options.latents;
    const int64_t maps = 2 * d * ((options.latents > 1 ? 2 : 1) * latents + (options.gate ? 3 : 2) * d);
    return n * (maps + (one_each() ? 4 * d : 6 * latents * dim) + 12 * latents + (options.gate ? 2 * d : 0));
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const int64_t L = options.latents, heads = options.heads;
    const naive::Matrix ks = naive::linear(run.x, run.w, "k"), vs = naive::linear(run.x, run.w, "v");
    const naive::Matrix qs = L > 1 ? naive::linear(run.x, run.w, "q") : naive::Matrix(run.x.rows, heads);
    naive::Matrix &means = run.state["means"], &log_sum = run.state["log_sum"];
    if (!means.rows) {
      means = naive::Matrix(heads, L * dim);
      log_sum = naive::Matrix(1, heads * L);
      for (double& a : log_sum.a) a = -INFINITY;
    }
    naive::Matrix core(run.x.rows, heads * dim);
    if (run.pattern == Pattern::bidirectional)  // the sums are those of all tokens before the first one reads them
      for (int64_t i = 0; i < heads * L; ++i)
        for (int64_t s = 0; s < run.x.rows; ++s) add(i, s, ks, vs, means, log_sum);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        double total = 0, top = -INFINITY;
        for (int64_t l = 0; l < L; ++l) top = std::fmax(top, qs(t, h * L + l));
        for (int64_t l = 0; l < L; ++l) total += std::exp(qs(t, h * L + l) - top);
        for (int64_t l = 0; l < L; ++l) {
          if (run.pattern == Pattern::causal) add(h * L + l, t, ks, vs, means, log_sum);
          for (int64_t j = 0; j < dim; ++j)
            core(t, h * dim + j) += std::exp(qs(t, h * L + l) - top) / total * means.a[(h * L + l) * dim + j];
        }
      }
    if (options.gate) {
      const naive::Matrix g = naive::linear(run.x, run.w, "gate");
      for (size_t i = 0; i < core.a.size(); ++i) core.a[i] *= naive::sigmoid(g.a[i]);
    }
    return naive::linear(core, run.w, "out");
  }

  // Token t joins what latent i of all heads holds.
  void add(int64_t i, int64_t t, const naive::Matrix& ks, const naive::Matrix& vs, naive::Matrix& means,
           naive::Matrix& log_sum) const {
    double& sum = log_sum.a[i];
    const double key = ks(t, i), high = std::fmax(sum, key),
                 next = high + std::log(std::exp(sum - high) + std::exp(key - high));
    for (int64_t j = 0; j < dim; ++j) {
      double& mean = means.a[i * dim + j];
      mean = std::exp(sum - next) * mean + std::exp(key - next) * vs(t, i / options.latents * dim + j);
    }
    sum = next;
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const int64_t n = x.rows(), latents = options.heads * options.latents;
    const Tensor p = shares(x, c).value(), logits = k(x, c).value();
    ImplicitMatrix m{Tensor::zeros({options.heads, n, n}), v(x, c).value()};
    for (int64_t l = 0; l < latents; ++l)
      for (int64_t i = 0; i < n; ++i) {
        double top = -INFINITY, total = 0;
        for (int64_t j = 0; j <= i; ++j) top = std::fmax(top, logits.data()[j * latents + l]);
        for (int64_t j = 0; j <= i; ++j) total += std::exp(logits.data()[j * latents + l] - top);
        for (int64_t j = 0; j <= i; ++j)
          m.weights.data()[(l / options.latents * n + i) * n + j] +=
              p.data()[i * latents + l] * static_cast<float>(std::exp(logits.data()[j * latents + l] - top) / total);
      }
    return m;
  }

  Options options;
  int64_t dim;
  Linear q, k, v, out, gate;
};

}  // namespace

void register_latte(Registry<Mixer>& r) {
  r.add<Latte>("latte");
}

}  // namespace sennit::mixers
