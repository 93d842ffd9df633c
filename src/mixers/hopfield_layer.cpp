// Hopfield Networks is All You Need (Ramsauer et al., arXiv:2008.02217), section 3, HopfieldLayer: stored patterns P
// that are learned, which every token retrieves from by itself:
//   r <- softmax(beta r K_h^T) K_h   updates - 1 times from r = Q_h x,   y = W_o concat_h softmax(beta r K_h^T) V_h
//   K_h = W_k P,   V_h = W_v P
// Tokens do not see each other: a memory to stand between mixers that let them.
#include <cmath>

#include "mixers/heads.h"
#include "mixers/retrieval.h"
#include "nn/init.h"

namespace sennit::mixers {
namespace {

struct HopfieldLayer : Heads {
  struct Options {
    int64_t heads = 4, stored = 64;
    Retrieval retrieval;
    Fields fields() {
      Fields all = retrieval.fields();
      all.insert(all.begin(), {{"heads", &heads, "heads", {.min = 1, .max = 1024}},
                               {"stored", &stored, "patterns that are learned", {.min = 1, .max = 1e6}}});
      return all;
    }
  };
  static Info info() {
    return {.title = "Hopfield layer (learned patterns)",
            .paper = "arXiv:2008.02217",
            .equation = "y = softmax(beta r K^T) V, K and V of learned patterns",
            .cost = "O(n d stored)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"two updates", R"({"stored": 9, "updates": 2})"},
                         {"until it rests", R"({"stored": 9, "updates": 3, "tolerance": 0.1})"}}};
  }
  HopfieldLayer(const Dims& d, const Options& o, Rng rng) : Heads("hopfield_layer", d, o.heads, rng), options(o) {
    options.retrieval.set_beta(dim);
    patterns.init(normal_init({o.stored, d.d_model}, 1, rng.fork("patterns")));
  }
  void visit(const ParameterVisitor& p) override {
    Heads::visit(p);
    p("patterns", patterns);
  }
  StateSpec state_spec() const override { return {}; }

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<HopfieldLayer>("hopfield_layer", batch);
    const Context& c = *batch.context;
    const Var keys[] = {k(patterns, c)}, values[] = {v(patterns, c)};
    const AttentionSegment all[] = {{0, x.rows(), 0, 0, options.stored, 0}};
    const AttentionOptions one = options.retrieval.attention(heads, false);
    const Var state = settled(q(x, c), keys, all, one, options.retrieval);
    return output(x, attention(state, keys, values, all, one), c);
  }
  int64_t flops(int64_t n) const override {
    return map_flops(n, options.stored) + 4 * options.retrieval.updates * n * options.stored * width();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const naive::Matrix &stored = run.w.at("patterns"), keys = naive::linear(stored, run.w, "k"),
                        values = naive::linear(stored, run.w, "v");
    const naive::AttentionView view{heads, options.retrieval.beta, false};
    const naive::Matrix state = naive_settled(naive::linear(run.x, run.w, "q"), keys, view, options.retrieval);
    return naive::linear(naive::attention(state, keys, values, view), run.w, "out");
  }

  Options options;
  Parameter patterns;
};

}  // namespace

void register_hopfield_layer(Registry<Mixer>& r) {
  r.add<HopfieldLayer>("hopfield_layer");
}

}  // namespace sennit::mixers
