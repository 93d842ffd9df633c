// Big Bird: Transformers for Longer Sequences (Zaheer et al., arXiv:2007.14062), section 2, the internal construction:
// a query block sees
//   the first g blocks, a window of w blocks around it, and r blocks drawn at random (anew for each head),
// and the first g blocks see everything:
//   y_i = W_o concat_h sum_{j in A_h(i)} softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// Causal attention drops what comes after a query; its random blocks are drawn from those before, so that they do not
// depend on how long the sequence will be.

#include "mixers/sparse_settings.h"

namespace sennit::mixers {
namespace {

struct BigBird : SparseMixer {
  struct Options : HeadSettings {
    int64_t block = 64, global = 2, window = 3, random = 3, seed = 0;
    Fields fields() {
      Fields all = HeadSettings::fields();
      const Fields own = {
          {"block", &block, "keys a block", {.min = 1, .max = 1e6}},
          {"global", &global, "first blocks that all see and that see all", {.min = 0, .max = 1e6}},
          {"window",
           &window,
           "blocks around a query's own, which is one of them: an odd number",
           {.min = 1, .max = 1e6}},
          {"random", &random, "blocks drawn at random for each block of queries", {.min = 0, .max = 1e6}},
          {"seed", &seed, "of the draw", {.min = 0, .max = 1e15}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {.title = "BigBird",
            .paper = "arXiv:2007.14062",
            .equation =
                "y_i = sum_{j in A(i)} softmax_j(q_i k_j / sqrt(K)) v_j, A(i) the first blocks, those around, and a "
                "few at random",
            .cost = "O(n block (global + window + random) d)",
            .patterns = {Pattern::causal, Pattern::bidirectional},
            .settings = {{"small blocks", R"({"block": 8, "global": 1, "random": 2, "kv_heads": 2})"},
                         {"windows", R"({"block": 5, "global": 0, "window": 5, "random": 0})"},
                         {"odd blocks", R"({"block": 19, "global": 1, "window": 1, "random": 1, "qk_norm": true})"}}};
  }

  BigBird(const Dims& d, const Options& o, Rng rng)
      : SparseMixer("bigbird", d, o, rng), options(o), half(o.window / 2) {
    if (o.window % 2 == 0) fail({"bigbird", "a window of an odd number of blocks", fmt::format("{}", o.window)});
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<BigBird>("bigbird", batch);
    return attend(x, batch);
  }

  // The blocks drawn for a block of queries, out of those that are in neither its window nor the first ones (Floyd's
  // sampling without replacement). Causal: of those before.
  BlockSet drawn(int64_t head, bool causal, int64_t at, int64_t blocks) const {
    const int64_t before = std::max<int64_t>(0, at - half - options.global);
    const int64_t after_first = std::max(options.global, at + half + 1);
    const int64_t open = before + (causal ? 0 : std::max<int64_t>(0, blocks - after_first));
    Rng rng = Rng(static_cast<uint64_t>(options.seed)).fork("bigbird").fork(head).fork(at);
    BlockSet picks;
    for (int64_t top = std::max<int64_t>(0, open - options.random); top < open; ++top) {
      const int64_t pick = rng.below(top + 1);
      picks.insert(picks.count(pick) ? top : pick);
    }
    BlockSet all;
    for (const int64_t p : picks) all.insert(p < before ? options.global + p : after_first + p - before);
    return all;
  }

  void tiles(int64_t head, bool causal, TileList& list) const override {
    const int64_t b = options.block, blocks = (list.keys() + b - 1) / b, near = causal ? 0 : -kEverywhere;
    const Places q = list.queries();
    list.add(Places{0, list.keys()}, Places{q.begin, std::min(q.end, options.global * b)}, near);
    for (int64_t at = std::max(options.global, q.begin / b); at * b < q.end; ++at) {
      BlockSet seen = drawn(head, causal, at, blocks);
      for (int64_t g = 0; g < std::min(options.global, blocks); ++g) seen.insert(g);
      for (int64_t w = std::max<int64_t>(0, at - half); w <= std::min(blocks - 1, causal ? at : at + half); ++w)
        seen.insert(w);
      for (const int64_t k : seen) list.add(Places{k * b, (k + 1) * b}, Places{at * b, (at + 1) * b}, near);
    }
  }

  bool sees(int64_t head, bool causal, int64_t i, int64_t j, int64_t n) const override {
    const int64_t b = options.block, at = i / b, k = j / b;
    if (at < options.global || k < options.global || std::abs(at - k) <= half) return true;
    return drawn(head, causal, at, (n + b - 1) / b).count(k) > 0;
  }
  int64_t keys_seen(int64_t, int64_t i) const override {
    const int64_t at = i / options.block, own = i % options.block + 1;
    if (at < options.global) return i + 1;
    const int64_t between = std::max<int64_t>(0, at - half - options.global);  // neither first nor in the window
    return own + options.block * (at - between + std::min(options.random, between));
  }

  // The last block counts as whole.
  int64_t keys_seen_both_ways(int64_t, int64_t i, int64_t n) const override {
    const int64_t b = options.block, blocks = (n + b - 1) / b, at = i / b, first = std::min(options.global, blocks);
    if (at < first) return n;
    const int64_t window = std::min(blocks - 1, at + half) - std::max(at - half, first) + 1;
    const int64_t others = blocks - first - window;
    return std::min(n, b * (first + window + std::min(options.random, others)));
  }

  Options options;
  int64_t half;
};

}  // namespace

void register_bigbird(Registry<Mixer>& r) {
  r.add<BigBird>("bigbird");
}

}  // namespace sennit::mixers
