// MoBA: Mixture of Block Attention for Long-Context LLMs (Lu et al., arXiv:2502.13189), equations 2 to 6: each head of
// a query sees its own block of keys and the k - 1 others whose mean key it likes best,
//   s_b = q_i . mean(K[block b]),   y_i = W_o concat_h sum_{j in chosen blocks, j <= i} softmax_j(q_ih . k_jh /
//   sqrt(K)) v_jh
// Blocks that are not whole before the query are not scored. Nothing is learned beside ordinary attention: with `top`
// blocks enough for the sequence it is that attention.
#include "mixers/choosing_settings.h"

namespace sennit::mixers {
namespace {

struct Moba : ChoosingMixer {
  using Options = ChoosingSettings;
  static Info info() {
    return {
        .title = "Mixture of block attention (MoBA)",
        .paper = "arXiv:2502.13189",
        .equation = "y_i = sum_{j in top blocks by q_i . mean(k)} softmax_j(q_i k_j / sqrt(K)) v_j",
        .cost = "O(n top block d + n^2 d / block)",
        .settings = {{"small blocks", R"({"block": 8, "top": 3})"},
                     {"grouped", R"({"block": 5, "top": 4, "kv_heads": 2, "sink": 1, "local": 2, "qk_norm": true})"},
                     {"tiny blocks", R"({"block": 2, "top": 6, "position": "alibi"})"}}};
  }
  Moba(const Dims& d, const Options& o, Rng rng) : ChoosingMixer("moba", d, o, rng) {
    set_layout({.unit = o.block, .summary = heads.kv_heads * heads.head_dim, .groups = heads.heads});
  }
  Var forward(const Var& x, const Batch& batch) override {
    check_batch<Moba>("moba", batch);
    return attend(x, batch);
  }

  int64_t score(const Scoring& s, float* scores, int64_t stride, float* scratch) const override {
    const Tensor &q = s.queries, &means = s.summaries;
    const int64_t kv = s.group / heads.group(), dim = heads.head_dim;
    kernels::sparse_attention().scores(q.data() + (s.segment.query_begin + s.first) * q.row_size() + s.group * dim,
                                       q.row_size(), s.rows, means.data() + kv * dim, means.row_size(), s.blocks, dim,
                                       scores, stride, scratch);
    return 2 * s.rows * s.blocks * dim;
  }
  int64_t score_scratch(int64_t, int64_t) const override { return kernels::kTileKeys * heads.head_dim; }
  int64_t score_flops(int64_t n) const override {
    return 2 * heads.heads * heads.head_dim * scored(n, settings_.block) + n * layout_.summary;
  }

  std::vector<double> naive_scores(NaiveRun&, const AttentionHeads::Naive& m, const naive::Matrix& summaries,
                                   int64_t head, int64_t i, int64_t blocks) const override {
    const int64_t kv = head * heads.kv_heads / heads.heads, dim = heads.head_dim;
    std::vector<double> scores(blocks);
    for (int64_t b = 0; b < blocks; ++b)
      for (int64_t p = 0; p < dim; ++p) scores[b] += m.q(i, head * dim + p) * summaries(b, kv * dim + p);
    return scores;
  }
};

}  // namespace

void register_moba(Registry<Mixer>& r) {
  r.add<Moba>("moba");
}

}  // namespace sennit::mixers
