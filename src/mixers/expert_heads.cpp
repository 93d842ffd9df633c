// A Mixture of h - 1 Heads is Better than h Heads (Peng et al., arXiv:2005.06537), equations 4 to 7: expert e is all
// heads but e, scaled by h / (h - 1), and a token weighs the experts by g_t = softmax(W_2 tanh(W_1 x_t)):
//   y_t = W_o concat_i (h / (h - 1)) (1 - g_ti) softmax_j(q_ti . k_ji / sqrt(K)) v_ji
// Even weights are attention. With `turns`, training takes gate and experts by turns (section 3.2): of so many steps
// one teaches the gates of all layers and leaves the experts as they are; in the others each sequence draws one expert
// from the mean of its g_t, which is all that it runs through and teaches, with the gate left as it is. The gate here
// is a token's own, where the paper takes the mean of its sequence: so it is causal.
#include <cmath>

#include "mixers/heads.h"
#include "nn/naive_sequence.h"
#include "ops/arithmetic.h"
#include "ops/maps.h"
#include "ops/norms.h"
#include "ops/products.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct ExpertHeads : Heads {
  struct Options {
    int64_t heads = 4, hidden = 16, turns = 0;
    Fields fields() {
      return {{"heads", &heads, "heads; as many experts", {.min = 2, .max = 1024}},
              {"hidden", &hidden, "width of the gate's network", {.min = 1, .max = 4096}},
              {"turns",
               &turns,
               "of so many steps of training, one teaches the gate alone, the others an expert a sequence; 0: all at "
               "once",
               {.min = 0, .max = 1e6}}};
    }
  };
  static Info info() {
    return {.title = "Mixture of attentive experts",
            .paper = "arXiv:2005.06537",
            .equation = "y_t = W_o concat_i (h / (h - 1)) (1 - g_ti) head_i(x)_t, g_t = softmax(MLP(x_t))",
            .cost = "O(n^2 d)",
            .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
            .settings = {{"two experts", R"({"heads": 2, "hidden": 3})"}}};
  }
  ExpertHeads(const Dims& d, const Options& o, Rng rng) : Heads("expert_heads", d, o.heads, rng), turns(o.turns) {
    gate_in = Linear(d.d_model, o.hidden, rng.fork("gate_in"), {.bias = true});
    gate_out = Linear(o.hidden, o.heads, rng.fork("gate_out"), {.bias = true});
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("gate_in", gate_in);
    p("gate_out", gate_out);
  }
  StateSpec state_spec() const override {
    return {{.name = "k", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads},
            {.name = "v", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads}};
  }
  float scale_of_scores() const { return 1 / std::sqrt(static_cast<float>(dim)); }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<ExpertHeads>("expert_heads", batch);
    const Context& c = *batch.context;
    const SeenRows seen = seen_rows({k(looked_at(x, batch), c), v(looked_at(x, batch), c)}, batch, 0, 0, heads);
    const Var core = attention(q(x, c), seen.part(0), seen.part(1), seen.segments,
                               {.heads = heads,
                                .kv_heads = heads,
                                .scale = scale_of_scores(),
                                .causal = batch.pattern == Pattern::causal,
                                .exact = c.exact,
                                .paired = wants_paired_attention(c)});
    if (!c.training || turns == 0) return output(x, core, c);
    if (c.rng.fork("turn").below(turns) > 0) return out(multiply_groups(core, drawn(gate(x, c).value(), batch)), c);
    return linear(multiply_groups(core.detach(), shares(gate(x.detach(), c))), out.weight.var.detach(), {},
                  c.precision);
  }
  Var output(const Var& x, const Var& core, const Context& c) override {
    return out(multiply_groups(core, shares(gate(x, c))), c);
  }
  Var gate(const Var& x, const Context& c) { return softmax(gate_out(tanh(gate_in(x, c)), c)); }
  // What each head counts for under weights g [N, heads] of the experts.
  Var shares(const Var& g) const {
    const auto share = static_cast<float>(heads) / static_cast<float>(heads - 1);
    return affine(g, -share, share);
  }
  // The shares of one expert a sequence.
  Var drawn(const Tensor& g, const Batch& batch) const {
    Tensor chosen = Tensor::zeros(g.shape());
    const Rng rng = batch.context->rng.fork("expert").fork(batch.slot);
    for (size_t i = 0; i < batch.segments.size(); ++i) {
      const Segment& s = batch.segments[i];
      double left = rng.uniform_at(i) * static_cast<double>(s.length);
      int64_t expert = 0;
      for (; expert < heads - 1; ++expert) {
        for (int64_t t = s.begin; t < s.begin + s.length; ++t) left -= g.data()[t * heads + expert];
        if (left < 0) break;
      }
      for (int64_t t = s.begin; t < s.begin + s.length; ++t) chosen.data()[t * heads + expert] = 1;
    }
    return shares(Var(chosen));
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const int64_t seen = pattern == Pattern::cross ? memory : n,
                  pairs = pattern == Pattern::causal ? n * (n + 1) / 2 : n * seen;
    return map_flops(n, seen) + 4 * pairs * width() + 2 * n * gate_in.out() * (width() + heads) + n * width();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross;
    const naive::Matrix& source = cross ? *run.memory : run.x;
    naive::Matrix ks = naive::linear(source, run.w, "k"), vs = naive::linear(source, run.w, "v");
    if (!cross) ks = naive::with_kept(run.state["k"], ks), vs = naive::with_kept(run.state["v"], vs);
    naive::Matrix y = naive::attention(
        naive::linear(run.x, run.w, "q"), ks, vs,
        {heads, 1 / std::sqrt(static_cast<double>(dim)), run.pattern == Pattern::causal, ks.rows - run.x.rows});
    naive::Matrix hidden = naive::linear(run.x, run.w, "gate_in");
    for (double& a : hidden.a) a = std::tanh(a);
    const naive::Matrix scores = naive::linear(hidden, run.w, "gate_out");
    for (int64_t t = 0; t < y.rows; ++t) {
      std::vector<double> g(heads);
      for (int64_t h = 0; h < heads; ++h) g[h] = scores(t, h);
      naive::softmax(g);
      for (int64_t c = 0; c < y.cols; ++c)
        y(t, c) *= static_cast<double>(heads) / static_cast<double>(heads - 1) * (1 - g[c / dim]);
    }
    return naive::linear(y, run.w, "out");
  }

  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    return softmax_weights(q(x, c).value(), k(x, c).value(), v(x, c).value(), scale_of_scores());
  }

  int64_t turns;
  Linear gate_in, gate_out;
};

}  // namespace

void register_expert_heads(Registry<Mixer>& r) {
  r.add<ExpertHeads>("expert_heads");
}

}  // namespace sennit::mixers
