#include "sequence/lag_attention.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/pair_filter.h"
#include "ops/count.h"
#include "sequence/per_head.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kLagTile = kernels::kAttentionRows;

struct LagPlan {
  LagAttentionOptions options;
  Tensor q, b, g;
  Pooled<Tensor> keys, values;
  Pooled<AttentionSegment> segments;

  int64_t heads() const { return options.heads; }
  int64_t entries() const { return b.row_size() / heads(); }  // of a head and distance
  const kernels::LagAttention& kernel() const {
    return options.pairs ? kernels::pair_filter() : kernels::lag_attention();
  }
  int64_t key_dim() const { return q.row_size() / heads(); }
  int64_t value_dim() const { return values[0].row_size() / heads(); }
  // `count` queries of a head of a segment, from query `first` on.
  kernels::LagAttentionTask task(const AttentionSegment& a, int64_t head, int64_t first, int64_t count) const {
    const Tensor &k = keys[a.source], &v = values[a.source];
    return {.rule = options.rule,
            .q = q.data() + (a.query_begin + first) * q.row_size() + head * key_dim(),
            .k = k.data() + a.key_begin * k.row_size() + head * key_dim(),
            .v = v.data() + a.key_begin * v.row_size() + head * value_dim(),
            .b = b.data() + head * entries(),
            .g = g.data() + head * entries(),
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .table_stride = b.row_size(),
            .queries = count,
            .keys = a.keys,
            .key_dim = key_dim(),
            .value_dim = value_dim(),
            .offset = a.offset + first,
            .reach = (b.rows() - 1) / 2,
            .causal = options.causal,
            .scale = options.scale};
  }
  int64_t scratch() const {
    int64_t most = 0;
    for (const AttentionSegment& a : segments) most = std::max(most, kernel().scratch_floats(task(a, 0, 0, a.queries)));
    return most;
  }
  int64_t flops() const {
    int64_t pairs = 0;
    for (const AttentionSegment& a : segments) pairs += visible_pairs(a, options.causal, 0);
    if (options.pairs) return pairs * heads() * 8 * key_dim();
    return pairs * heads() * (2 * (key_dim() + value_dim()) + (options.rule == LagRule::softmax ? 0 : 6));
  }
};

struct LagTile {
  size_t segment;
  int64_t head, begin, end;
};

}  // namespace

Var lag_attention(const Var& q, std::span<const Var> keys, std::span<const Var> values, const Var& b, const Var& g,
                  std::span<const AttentionSegment> segments, const LagAttentionOptions& options) {
  SENNIT_CHECK(
      b.shape() == g.shape() && b.columns() == (options.pairs ? q.columns() / 2 : options.heads) && b.rows() % 2 == 1,
      "lag_attention: tables {} and {}", b.shape().str(), g.shape().str());
  LagPlan plan{options, q.value(), b.value(), g.value(), {}, {}, {segments.begin(), segments.end()}};
  for (const Var& k : keys) plan.keys.push_back(k.value());
  for (const Var& v : values) plan.values.push_back(v.value());
  const int64_t width = options.heads * plan.value_dim(), flops = plan.flops();
  count_flops(flops);
  Tensor o({q.rows(), width});
  Pooled<LagTile> tiles;
  for (size_t i = 0; i < plan.segments.size(); ++i)
    for (int64_t h = 0; h < options.heads; ++h)
      for (int64_t at = 0; at < plan.segments[i].queries; at += kLagTile)
        tiles.push_back({i, h, at, std::min(at + kLagTile, plan.segments[i].queries)});
  each_with_scratch(std::ssize(tiles), plan.scratch(), [&](int64_t i, float* scratch) {
    const LagTile& tile = tiles[i];
    const AttentionSegment& a = plan.segments[tile.segment];
    plan.kernel().forward(plan.task(a, tile.head, tile.begin, tile.end - tile.begin),
                          o.data() + (a.query_begin + tile.begin) * width + tile.head * plan.value_dim(), width,
                          scratch);
  });
  if (!recording()) return Var(std::move(o));

  std::vector<Var> inputs = {q, b, g};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  return record(std::move(o), inputs, [plan, width, flops](std::span<const Tensor> dy, Gradients& into) {
    const int sources = static_cast<int>(plan.keys.size());
    count_flops(3 * flops);
    std::vector<Tensor*> dk, dv;
    for (int i = 0; i < sources; ++i) dk.push_back(&into.sum(3 + i)), dv.push_back(&into.sum(3 + sources + i));
    Tensor &dq = into.sum(0), &db = into.sum(1), &dg = into.sum(2);
    // A head's tables gather from all segments: one thread, in order.
    each_with_scratch(plan.heads(), plan.scratch(), [&](int64_t head, float* scratch) {
      for (const AttentionSegment& a : plan.segments) {
        const auto t = plan.task(a, head, 0, a.queries);
        plan.kernel().backward(
            t, dy[0].data() + a.query_begin * width + head * plan.value_dim(), width,
            {dq.data() + (t.q - plan.q.data()), dk[a.source]->data() + (t.k - plan.keys[a.source].data()),
             dv[a.source]->data() + (t.v - plan.values[a.source].data()), db.data() + head * plan.entries(),
             dg.data() + head * plan.entries()},
            scratch);
      }
    });
  });
}

}  // namespace sennit
