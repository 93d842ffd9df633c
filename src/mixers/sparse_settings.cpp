#include "mixers/sparse_settings.h"

#include <cmath>

namespace sennit::mixers {

Var SparseMixer::attend(const Var& x, const Batch& batch) {
  const auto m = heads.operands(x, batch);
  const bool causal = batch.pattern == Pattern::causal;
  const Var core = sparse_attention(
      m.queries, m.keys, m.values, m.segments,
      {.heads = heads.heads, .kv_heads = heads.kv_heads, .scale = heads.scale(), .slopes = heads.slopes},
      [this, causal](size_t, int64_t head, TileList& list) { tiles(head, causal, list); });
  return output(x, core, *batch.context);
}

int64_t SparseMixer::pattern_flops(Pattern pattern, int64_t n, int64_t memory) const {
  const int64_t keys = pattern == Pattern::cross ? memory : n;
  int64_t pairs = 0;
  for (int64_t h = 0; h < heads.heads; ++h)
    for (int64_t i = 0; i < n; ++i)
      pairs += pattern == Pattern::causal ? keys_seen(h, i) : keys_seen_both_ways(h, i, keys);
  return heads.flops(n, keys) + 4 * pairs * heads.head_dim;
}

naive::Matrix SparseMixer::naive(NaiveRun& run) const {
  const auto m = heads.naive(run);
  const bool causal = run.pattern == Pattern::causal;
  const int64_t dim = heads.head_dim;
  naive::Matrix core(run.x.rows, heads.heads * dim);
  for (int64_t i = 0; i < run.x.rows; ++i)
    for (int64_t h = 0; h < heads.heads; ++h) {
      std::vector<double> weights(m.k.rows, -INFINITY);
      for (int64_t j = 0; j < m.k.rows; ++j)
        if ((!causal || j <= m.offset + i) && sees(h, causal, m.offset + i, j, m.k.rows))
          weights[j] = heads.naive_score(m, h, i, j);
      naive_softmax(weights);
      for (int64_t j = 0; j < m.k.rows; ++j)
        for (int64_t p = 0; p < dim; ++p)
          core(i, h * dim + p) += weights[j] * m.v(j, h * heads.kv_heads / heads.heads * dim + p);
    }
  return naive::linear(core, run.w, "out");
}

std::optional<ImplicitMatrix> SparseMixer::implicit(const Var& x, const Context& c) {
  const int64_t n = x.rows();
  return heads.implicit(x, c, [&](int64_t h, int64_t i, std::vector<double>& scores) {
    for (int64_t j = 0; j <= i; ++j)
      if (!sees(h, true, i, j, n)) scores[j] = -INFINITY;
    naive_softmax(scores);
  });
}

}  // namespace sennit::mixers
