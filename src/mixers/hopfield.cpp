// Hopfield Networks is All You Need (Ramsauer et al., arXiv:2008.02217), equations 3 and 10: the state pattern of a
// token moves to what it retrieves of the stored patterns K_h, `updates` times, and what is retrieved last is their
// values:
//   r <- softmax(beta r K_h^T) K_h   updates - 1 times from r = Q_h,   y = W_o concat_h softmax(beta r K_h^T) V_h
// One update is softmax attention; `tolerance` ends them early where a state is at rest. The stored patterns are the
// tokens; hopfield_layer learns them.
#include <cmath>

#include "mixers/heads.h"
#include "mixers/retrieval.h"
#include "sequence/seen.h"

namespace sennit::mixers {
namespace {

struct Hopfield : Heads {
  struct Options {
    int64_t heads = 4;
    Retrieval retrieval{.updates = 3};
    Fields fields() {
      Fields all = retrieval.fields();
      all.insert(all.begin(), {{"heads", &heads, "heads", {.min = 1, .max = 1024}}});
      return all;
    }
  };
  static Info info() {
    return {.title = "Modern Hopfield network",
            .paper = "arXiv:2008.02217",
            .equation = "r <- softmax(beta r K^T) K repeatedly, y = softmax(beta r K^T) V",
            .cost = "O(n^2 d updates)",
            .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
            .settings = {{"one update", R"({"updates": 1, "beta": 1})"}, {"until it rests", R"({"tolerance": 0.1})"}}};
  }

  Hopfield(const Dims& d, const Options& o, Rng rng) : Heads("hopfield", d, o.heads, rng), options(o) {
    options.retrieval.set_beta(dim);
  }
  StateSpec state_spec() const override {
    return {{.name = "k", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads},
            {.name = "v", .shape = {1, width()}, .growth = Growth::per_token, .heads = heads}};
  }

  // Queries after all updates but the last, in which they read the values.
  Var retrieved(const Var& x, const SeenRows& seen, bool causal, std::span<const Var> last, const Context& c) {
    const AttentionOptions one = options.retrieval.attention(heads, causal);
    const Var state = settled(q(x, c), seen.part(0), seen.segments, one, options.retrieval);
    return last.empty() ? state : attention(state, seen.part(0), last, seen.segments, one);
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Hopfield>("hopfield", batch);
    const Context& c = *batch.context;
    const SeenRows seen = seen_rows({k(looked_at(x, batch), c), v(looked_at(x, batch), c)}, batch, 0, 0, heads);
    return output(x, retrieved(x, seen, batch.pattern == Pattern::causal, seen.part(1), c), c);
  }
  int64_t flops(int64_t n) const override { return pattern_flops(Pattern::causal, n, 0); }
  int64_t pattern_flops(Pattern pattern, int64_t n, int64_t memory) const override {
    const int64_t seen = pattern == Pattern::cross ? memory : n;
    return map_flops(n, seen) +
           4 * options.retrieval.updates * (pattern == Pattern::causal ? n * (n + 1) / 2 : n * seen) * width();
  }

  naive::Matrix naive(NaiveRun& run) const override {
    const bool cross = run.pattern == Pattern::cross;
    const naive::Matrix& source = cross ? *run.memory : run.x;
    naive::Matrix keys = naive::linear(source, run.w, "k"), values = naive::linear(source, run.w, "v");
    if (!cross) keys = naive::with_kept(run.state["k"], keys), values = naive::with_kept(run.state["v"], values);
    const naive::AttentionView view{heads, options.retrieval.beta, run.pattern == Pattern::causal,
                                    keys.rows - run.x.rows};
    const naive::Matrix state = naive_settled(naive::linear(run.x, run.w, "q"), keys, view, options.retrieval);
    return naive::linear(naive::attention(state, keys, values, view), run.w, "out");
  }

  // The last retrieval's weights.
  std::optional<ImplicitMatrix> implicit(const Var& x, const Context& c) override {
    const Segment whole[] = {{0, x.rows(), 0, nullptr}};
    const SeenRows seen = seen_rows({k(x, c), v(x, c)}, {whole, &c}, 0);
    return softmax_weights(retrieved(x, seen, true, {}, c).value(), seen.part(0)[0].value(), seen.part(1)[0].value(),
                           options.retrieval.beta);
  }

  Options options;
};

}  // namespace

void register_hopfield(Registry<Mixer>& r) {
  r.add<Hopfield>("hopfield");
}

}  // namespace sennit::mixers
