// How to Capture Higher-order Correlations? Generalizing Matrix Softmax Attention to Kronecker Computation (Alman and
// Song, arXiv:2310.04064), definition 1.1, head by head of d' numbers:
//   o_i = sum_{j, l} softmax_{(j, l)}(sum_p q_ip k1_jp k2_lp / d') (v1_j * v2_l),   y = W_o o
// Every token looks at all pairs of tokens, so that it can tell what no two of them show: whether some x_j + x_l =
// -x_i.
#include "sequence/kronecker.h"

#include <cmath>

#include "mixers/heads.h"

namespace sennit::mixers {
namespace {

struct Kronecker : Heads {
  struct Options {
    int64_t heads = 4;
    Fields fields() { return {{"heads", &heads, "heads", {.min = 1, .max = 1024}}}; }
  };
  static Info info() {
    return {.title = "Kronecker attention",
            .paper = "arXiv:2310.04064",
            .equation = "o_i = sum_{j,l} softmax(q_i . (k1_j * k2_l) / d') (v1_j * v2_l)",
            .cost = "O(n^3 d)",
            .patterns = {Pattern::bidirectional},
            .no_state = "every token looks at all pairs"};
  }

  Kronecker(const Dims& d, const Options& o, Rng rng)
      : Heads("kronecker", d, o.heads, rng),
        k2(d.d_model, width(), rng.fork("k2")),
        v2(d.d_model, width(), rng.fork("v2")) {}
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("k2", k2);
    p("v2", v2);
  }
  StateSpec state_spec() const override { return {}; }

  double scale() const { return 1 / static_cast<double>(dim); }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Kronecker>("kronecker", batch);
    const Context& c = *batch.context;
    const Var core = kronecker_attention({q(x, c), k(x, c), k2(x, c), v(x, c), v2(x, c)}, batch.segments,
                                         {.heads = heads, .scale = static_cast<float>(scale())});
    return output(x, core, c);
  }
  int64_t flops(int64_t n) const override {
    return map_flops(n) + 4 * n * width() * out.out() + 4 * n * n * n * width();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const auto of = [&](const char* name) { return naive::linear(run.x, run.w, name); };
    const naive::Matrix qs = of("q"), k1s = of("k"), k2s = of("k2"), v1s = of("v"), v2s = of("v2");
    naive::Matrix core(run.x.rows, width());
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < core.rows; ++i) add_pairs(qs, k1s, k2s, v1s, v2s, i, h * dim, core);
    return naive::linear(core, run.w, "out");
  }
  // Row i of the head that begins at column `first`.
  void add_pairs(const naive::Matrix& qs, const naive::Matrix& k1s, const naive::Matrix& k2s, const naive::Matrix& v1s,
                 const naive::Matrix& v2s, int64_t i, int64_t first, naive::Matrix& o) const {
    naive::Matrix s(o.rows, o.rows);
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j < s.rows; ++j)
      for (int64_t l = 0; l < s.rows; ++l) {
        for (int64_t c = first; c < first + dim; ++c) s(j, l) += scale() * qs(i, c) * k1s(j, c) * k2s(l, c);
        top = std::max(top, s(j, l));
      }
    for (double& x : s.a) total += x = std::exp(x - top);
    for (int64_t j = 0; j < s.rows; ++j)
      for (int64_t l = 0; l < s.rows; ++l)
        for (int64_t c = first; c < first + dim; ++c) o(i, c) += s(j, l) / total * v1s(j, c) * v2s(l, c);
  }

  Linear k2, v2;
};

}  // namespace

void register_kronecker(Registry<Mixer>& r) {
  r.add<Kronecker>("kronecker");
}

}  // namespace sennit::mixers
