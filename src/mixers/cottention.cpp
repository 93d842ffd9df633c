// Cottention: Linear Transformers With Cosine Attention (Mongaras et al., arXiv:2409.18747), equations 5 to 9:
//   o_t = sum_{s<=t} (q_t / |q_t|) . (k_s / |k_s|) s^(-sigmoid(m)) v_s,   y_t = W_o o_t
// The cosine takes the softmax's place, so that the sum is a state; m, learned for each head, says how much a value
// shrinks with the number of tokens before it. Where it reads both ways s runs over the whole sequence, and all of it
// shrinks by its length n:
//   o_t = n^(-sigmoid(m)) sum_s (q_t / |q_t|) . (k_s / |k_s|) v_s
#include <cmath>

#include "mixers/heads.h"
#include "ops/arithmetic.h"
#include "ops/layout.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/recurrences.h"
#include "sequence/whole.h"

namespace sennit::mixers {
namespace {

struct Cottention : Heads {
  static constexpr double kUnitEpsilon = 1e-12;

  struct Options {
    int64_t heads = 4;
    Fields fields() { return {{"heads", &heads, "heads", {.min = 1, .max = 1024}}}; }
  };
  static Info info() {
    return {.title = "Cosine attention",
            .paper = "arXiv:2409.18747",
            .equation = "y_t = sum_{s<=t} cos(q_t, k_s) s^(-sigmoid(m)) v_s",
            .cost = "O(n d^2 / heads)",
            .patterns = {Pattern::causal, Pattern::bidirectional}};
  }

  Cottention(const Dims& d, const Options& o, Rng rng) : Heads("cottention", d, o.heads, rng) {
    shrink.init(Tensor::full({o.heads}, 0.5f));
    shrink.decays = false;
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("shrink", shrink);
  }
  StateSpec state_spec() const override { return {{"S", {heads, dim, dim}}}; }

  struct Core {
    Var q, k, v;
  };
  Core core_inputs(const Var& x, const Batch& batch) {
    const Context& c = *batch.context;
    const bool causal = batch.pattern == Pattern::causal;
    Tensor log_count({x.rows(), 1});
    for (const Segment& s : batch.segments)
      for (int64_t t = 0; t < s.length; ++t)
        log_count.data()[s.begin + t] =
            static_cast<float>(std::log(static_cast<double>(causal ? s.position + t + 1 : s.length)));
    const Var weight = exp(scale(matmul(Var(log_count), reshape(sigmoid(shrink), {1, heads})), -1));
    const NormOptions unit{.groups = heads, .epsilon = static_cast<float>(kUnitEpsilon)};
    return {l2norm(q(x, c), unit), l2norm(k(x, c), unit), multiply_groups(v(x, c), weight)};
  }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Cottention>("cottention", batch);
    const Core in = core_inputs(x, batch);
    const Var core = batch.pattern == Pattern::causal ? gla(in.q, in.k, in.v, {}, batch, {.heads = heads})
                                                      : whole_products(in.q, in.k, in.v, batch.segments, heads);
    return output(x, core, *batch.context);
  }
  int64_t flops(int64_t n) const override {
    const int64_t d = out.out();
    return n * (8 * d * d + 4 * d * dim + 8 * d);
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix qs = naive::l2norm(naive::linear(run.x, run.w, "q"), heads, kUnitEpsilon);
    const naive::Matrix ks = naive::l2norm(naive::linear(run.x, run.w, "k"), heads, kUnitEpsilon),
                        vs = naive::linear(run.x, run.w, "v");
    naive::Matrix core(run.x.rows, heads * dim);
    if (run.pattern == Pattern::bidirectional) {
      for (int64_t t = 0; t < core.rows; ++t)
        for (int64_t s = 0; s < core.rows; ++s)
          for (int64_t h = 0; h < heads; ++h) {
            double cosine = 0;
            for (int64_t c = h * dim; c < (h + 1) * dim; ++c) cosine += qs(t, c) * ks(s, c);
            for (int64_t c = h * dim; c < (h + 1) * dim; ++c)
              core(t, c) += shrunk(run.w, h, core.rows) * cosine * vs(s, c);
          }
      return naive::linear(core, run.w, "out");
    }
    naive::Matrix& S = run.state["S"];
    if (!S.rows) S = naive::Matrix(heads, dim * dim);
    for (int64_t t = 0; t < run.x.rows; ++t)
      for (int64_t c = 0; c < core.cols; ++c) {  // key channel
        const int64_t h = c / dim;
        for (int64_t j = 0; j < dim; ++j) {
          double& s = S(h, c % dim * dim + j);
          s += ks(t, c) * shrunk(run.w, h, run.position + t + 1) * vs(t, h * dim + j);
          core(t, h * dim + j) += s * qs(t, c);
        }
      }
    return naive::linear(core, run.w, "out");
  }

  static double shrunk(const naive::Weights& w, int64_t head, int64_t count) {
    return std::pow(static_cast<double>(count), -naive::sigmoid(w.at("shrink").a[static_cast<size_t>(head)]));
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const Core in = core_inputs(x, {whole, &c});
    return inner_products(in.q.value(), in.k.value(), in.v.value());
  }

  Parameter shrink;
};

}  // namespace

void register_cottention(Registry<Mixer>& r) {
  r.add<Cottention>("cottention");
}

}  // namespace sennit::mixers
