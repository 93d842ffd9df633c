// The Information Pathways Hypothesis: Transformers are Dynamic Self-Ensembles (Hussain et al., arXiv:2306.01705),
// section 4, stochastically subsampled self-attention in its unbiased form: while it trains, a sequence of a layer
// keeps each key with probability `rate`, drawn anew at every step, and attends to those, and to the `window` last ones
// if there are any:
//   y_i = W_o concat_h sum_{j kept or i - j < window} softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// A token that sees no key then reads nothing. Otherwise it is exact attention. All heads and queries share a draw, so
// that the kept keys stand close in tiles.
#include "mixers/sparse_settings.h"

namespace sennit::mixers {
namespace {

struct Subsampled : SparseMixer {
  struct Options : HeadSettings {
    double rate = 0.25;
    int64_t window = 0;
    Fields fields() {
      Fields all = HeadSettings::fields();
      const Fields own = {
          {"rate",
           &rate,
           "probability that a key is kept in a step of training; 1: exact attention",
           {.min = 0, .max = 1}},
          {"window", &window, "last keys that are always seen, a token itself first", {.min = 0, .max = 1e9}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {
        .title = "Stochastically subsampled attention",
        .paper = "arXiv:2306.01705",
        .equation = "y_i = sum_{j kept or near} softmax_j(q_i k_j / sqrt(K)) v_j while training, all keys otherwise",
        .cost = "O(n^2 rate d) while training, O(n^2 d) otherwise",
        .patterns = {Pattern::causal, Pattern::bidirectional, Pattern::cross},
        .settings = {{"grouped", R"({"kv_heads": 2, "window": 9, "position": "alibi"})"}}};
  }

  Subsampled(const Dims& d, const Options& o, Rng rng)
      : SparseMixer("subsampled", d, o, rng), rate(o.rate), window(o.window) {}

  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Subsampled>("subsampled", batch);
    return batch.context->training && rate < 1 ? subsampled(x, batch) : attend(x, batch);
  }

  Var subsampled(const Var& x, const Batch& batch) {
    const auto m = heads.operands(x, batch);
    const bool causal = batch.pattern == Pattern::causal;
    const auto kept = std::make_shared<std::vector<std::vector<int32_t>>>();
    const Rng draws = batch.context->rng.fork("subsampled").fork(batch.slot);
    for (size_t i = 0; i < m.segments.size(); ++i) kept->push_back(drawn(m.segments[i].keys, draws.fork(i)));
    const Var core = sparse_attention(
        m.queries, m.keys, m.values, m.segments,
        {.heads = heads.heads, .kv_heads = heads.kv_heads, .scale = heads.scale(), .slopes = heads.slopes},
        [kept, causal, w = window](size_t segment, int64_t, TileList& list) {
          const Places q = list.queries();
          // The keys near, on both sides where there are two, and those kept further off.
          if (w > 0) list.add(Places{q.begin - w + 1, q.end + (causal ? 0 : w - 1)}, q, causal ? 0 : 1 - w, w);
          if (causal || w > 0) list.add((*kept)[segment], q, w);
          if (!causal) list.add((*kept)[segment], q, -kEverywhere, w > 0 ? 1 - w : kEverywhere);
        });
    return output(x, core, *batch.context);
  }
  // Key by key and by its place alone, so that a longer sequence keeps the same ones.
  std::vector<int32_t> drawn(int64_t keys, const Rng& rng) const {
    std::vector<int32_t> all;
    for (int64_t j = 0; j < keys; ++j)
      if (rng.uniform_at(static_cast<uint64_t>(j)) < rate) all.push_back(static_cast<int32_t>(j));
    return all;
  }

  void tiles(int64_t, bool causal, TileList& list) const override {
    list.add(Places{0, list.keys()}, list.queries(), causal ? 0 : -kEverywhere);
  }
  bool sees(int64_t, bool, int64_t, int64_t, int64_t) const override { return true; }
  int64_t keys_seen(int64_t, int64_t i) const override { return i + 1; }

  double rate;
  int64_t window;
};

}  // namespace

void register_subsampled(Registry<Mixer>& r) {
  r.add<Subsampled>("subsampled");
}

}  // namespace sennit::mixers
