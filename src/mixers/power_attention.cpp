// PowerAttention: Exponentially Scaling of Receptive Fields for Effective Sparse Attention (Chen et al.,
// arXiv:2503.03588), section 3: a query block sees the first block(s), a window of w blocks, and the blocks 1, 2, 4, 8,
// ... before it:
//   y_i = W_o concat_h sum_{j in A(i)} softmax_j(q_ih . k_jh / sqrt(K)) v_jh
// Any distance below 2^L blocks is a sum of at most L such steps, so L layers reach 2^L blocks with about log n blocks
// a row.

#include "mixers/sparse_settings.h"

namespace sennit::mixers {
namespace {

struct PowerAttention : SparseMixer {
  struct Options : HeadSettings {
    int64_t block = 64, sink = 1, window = 2;
    Fields fields() {
      Fields all = HeadSettings::fields();
      const Fields own = {{"block", &block, "keys a block", {.min = 1, .max = 1e6}},
                          {"sink", &sink, "first blocks that all see", {.min = 0, .max = 1e6}},
                          {"window", &window, "last blocks, a query's own among them", {.min = 1, .max = 1e6}}};
      all.insert(all.end(), own.begin(), own.end());
      return all;
    }
  };
  static Info info() {
    return {.title = "PowerAttention",
            .paper = "arXiv:2503.03588",
            .equation =
                "y_i = sum_{j in A(i)} softmax_j(q_i k_j / sqrt(K)) v_j, A(i) the first block, the last, and those 2^k "
                "blocks before",
            .cost = "O(n block (sink + window + log(n / block)) d)",
            .settings = {{"small blocks", R"({"block": 4, "kv_heads": 2})"},
                         {"wide window", R"({"block": 7, "window": 4, "sink": 2, "position": "alibi"})"},
                         {"powers alone", R"({"block": 3, "window": 1, "sink": 0, "position": "none"})"}}};
  }

  PowerAttention(const Dims& d, const Options& o, Rng rng) : SparseMixer("power_attention", d, o, rng), options(o) {}
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<PowerAttention>("power_attention", batch);
    return attend(x, batch);
  }

  BlockSet blocks_of(int64_t at) const {
    BlockSet seen;
    for (int64_t b = 0; b < std::min(options.sink, at + 1); ++b) seen.insert(b);
    for (int64_t b = std::max<int64_t>(0, at - options.window + 1); b <= at; ++b) seen.insert(b);
    for (int64_t step = 1; step <= at; step *= 2) seen.insert(at - step);
    return seen;
  }
  void tiles(int64_t, bool, TileList& list) const override {
    const int64_t b = options.block;
    for (int64_t at = list.queries().begin / b; at * b < list.queries().end; ++at)
      for (const int64_t k : blocks_of(at)) list.add(Places{k * b, (k + 1) * b}, Places{at * b, (at + 1) * b}, 0);
  }

  bool sees(int64_t, bool, int64_t i, int64_t j, int64_t) const override {
    const int64_t back = i / options.block - j / options.block;
    return j / options.block < options.sink || back < options.window || (back & (back - 1)) == 0;
  }
  int64_t keys_seen(int64_t, int64_t i) const override {
    return (std::ssize(blocks_of(i / options.block)) - 1) * options.block + i % options.block + 1;
  }

  Options options;
};

}  // namespace

void register_power_attention(Registry<Mixer>& r) {
  r.add<PowerAttention>("power_attention");
}

}  // namespace sennit::mixers
