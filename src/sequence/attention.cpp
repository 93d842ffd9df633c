#include "sequence/attention.h"

#include <algorithm>

#include "base/cpu.h"
#include "base/error.h"
#include "base/parallel.h"
#include "kernels/attention.h"
#include "kernels/paired_attention.h"
#include "ops/count.h"
#include "products/panel_kernels.h"
#include "sequence/per_head.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kQueryTile = 128, kLeastPairedQueries = 32;

struct Shapes {
  int64_t heads, kv_heads, dk, dv;
  int64_t group() const { return heads / kv_heads; }
};

struct Plan {
  Shapes s;
  AttentionOptions options;
  Pooled<float> slopes;
  Pooled<AttentionSegment> segments;

  bool paired(const AttentionSegment& a) const {
    return options.paired && options.map == ScoreMap::softmax && a.queries >= kLeastPairedQueries;
  }
  kernels::AttentionTask task(const AttentionSegment& a, int64_t head, const Tensor& q, const Tensor& k, const Tensor& v) const {
    const int64_t kv = head / s.group();
    return {.q = q.data() + a.query_begin * q.row_size() + head * s.dk,
            .k = cached_head(k, a.key_begin, kv, s.kv_heads),
            .v = cached_head(v, a.key_begin, kv, s.kv_heads),
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .queries = a.queries,
            .keys = a.keys,
            .key_dim = s.dk,
            .value_dim = s.dv,
            .offset = a.offset,
            .causal = options.causal,
            .window = options.window,
            .block = options.block,
            .position = a.position,
            .scale = options.scale,
            .alibi = slopes.empty() ? 0 : slopes[head],
            .map = options.map,
            .clip_low = options.clip_low,
            .clip_high = options.clip_high,
            .count_bias = options.count_bias,
            .power = options.power,
            .epsilon = options.epsilon,
            .format = cache_format(k.dtype())};
  }
};

struct Tile {
  size_t segment;
  int64_t head, begin, end;
};

// The keys and values of the paired segments, packed for all queries.
class PackedKeys {
 public:
  PackedKeys(const Plan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values, bool for_backward)
      : heads_(plan.s.kv_heads) {
    if (std::none_of(plan.segments.begin(), plan.segments.end(), [&](const AttentionSegment& a) { return plan.paired(a); })) return;
    const kernels::PairedAttention& kernel = kernels::paired_attention();
    Pooled<Tensor> k(keys.size()), v(keys.size());  // as floats, where a paired segment looks at them
    for (const AttentionSegment& a : plan.segments)
      if (plan.paired(a) && !k[a.source].defined())
        k[a.source] = widened(keys[a.source], heads_), v[a.source] = widened(values[a.source], heads_);
    const auto task = [&](int64_t i, int64_t kv) {
      const AttentionSegment& a = plan.segments[i];
      return plan.task(a, kv * plan.s.group(), q, k[a.source], v[a.source]);
    };
    Pooled<Tile> pieces;
    for (size_t i = 0; i < plan.segments.size(); ++i)
      for (int64_t kv = 0; kv < heads_; ++kv) {
        starts_.push_back(floats_);
        if (!plan.paired(plan.segments[i])) continue;
        floats_ += kernel.packed_floats(task(i, kv), for_backward);
        const int64_t blocks = (plan.segments[i].keys + kernels::kPairedKeys - 1) / kernels::kPairedKeys;
        for (int64_t b = 0; b < blocks; b += kBlocks) pieces.push_back({i, kv, b, std::min(b + kBlocks, blocks)});
      }
    packed_ = Tensor({floats_});
    parallel_for(std::ssize(pieces), 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const Tile& piece = pieces[p];
        kernel.pack(task(piece.segment, piece.head), panel_kernels(Precision::bf16), for_backward, piece.begin, piece.end,
                    packed_.data() + start(piece.segment, piece.head));
      }
    });
  }
  const float* of(int64_t segment, int64_t kv) const { return packed_.data() + start(segment, kv); }

 private:
  static constexpr int64_t kBlocks = 8;  // packed at a time
  int64_t start(int64_t segment, int64_t kv) const { return starts_[segment * heads_ + kv]; }
  int64_t heads_, floats_ = 0;
  Pooled<int64_t> starts_;
  Tensor packed_;
};

// How many heads of a group read a block of keys together where each has one query: all that leave every thread some.
int64_t heads_together(const Plan& plan) {
  if (recording() || !plan.slopes.empty()) return 1;
  const int64_t others = plan.s.kv_heads * std::ssize(plan.segments),
                parts = std::clamp<int64_t>((thread_count() + others - 1) / std::max<int64_t>(1, others), 1, plan.s.group());
  return (plan.s.group() + parts - 1) / parts;
}

// Heads of a group, each with the one query of segment `a`, as one task.
void forward_group(const Plan& plan, const AttentionSegment& a, int64_t head, int64_t heads, const Tensor& q, const Tensor& k, const Tensor& v,
                   Tensor& o, float* scratch) {
  auto task = plan.task(a, head, q, k, v);
  task.queries = heads, task.q_stride = plan.s.dk, task.together = true;
  const int64_t need = kernels::attention().scratch_floats(task);
  kernels::attention().forward(task, 0, heads, o.data() + a.query_begin * o.row_size() + head * plan.s.dv, plan.s.dv, scratch + need, scratch);
}

void forward(const Plan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values, Tensor& o, Tensor& lse) {
  const PackedKeys packed(plan, q, keys, values, false);
  Pooled<Tile> tiles;
  const int64_t together = heads_together(plan);
  for (size_t i = 0; i < plan.segments.size(); ++i)
    for (int64_t h = 0; h < plan.s.heads; h += plan.segments[i].queries == 1 ? std::min(together, plan.s.group() - h % plan.s.group()) : 1)
      for (int64_t b = 0; b < plan.segments[i].queries; b += kQueryTile)
        tiles.push_back({i, h, b, std::min(b + kQueryTile, plan.segments[i].queries)});
  int64_t need = 0;
  for (const AttentionSegment& a : plan.segments) {
    const auto task = plan.task(a, 0, q, keys[a.source], values[a.source]);
    need = std::max(need, plan.paired(a) ? kernels::paired_attention().forward_floats(task) : kernels::attention().scratch_floats(task));
  }
  need += 2 * plan.s.group();  // where heads go together: their statistics, and room for more queries
  each_with_scratch(std::ssize(tiles), need, [&](int64_t i, float* scratch) {
    const Tile& tile = tiles[i];
    const AttentionSegment& a = plan.segments[tile.segment];
    if (const int64_t heads = std::min(together, plan.s.group() - tile.head % plan.s.group()); heads > 1 && a.queries == 1)
      return forward_group(plan, a, tile.head, heads, q, keys[a.source], values[a.source], o, scratch);
    const auto task = plan.task(a, tile.head, q, keys[a.source], values[a.source]);
    float *to = o.data() + a.query_begin * o.row_size() + tile.head * plan.s.dv,
          *stat = lse.data() + tile.head * lse.row_size() + a.query_begin;
    if (plan.paired(a))
      kernels::paired_attention().forward(task, panel_kernels(Precision::bf16), packed.of(tile.segment, tile.head / plan.s.group()), tile.begin,
                                          tile.end, to, o.row_size(), stat, scratch);
    else
      kernels::attention().forward(task, tile.begin, tile.end, to, o.row_size(), stat, scratch);
  });
}

struct Slots {
  std::span<Tensor*> dk, dv;  // one for each source
};

void backward(const Plan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values, const Tensor& o,
              const Tensor& lse, const Tensor& dy, Tensor& dq, const Slots& d) {
  const PackedKeys packed(plan, q, keys, values, true);
  // A key-value head's gradients are summed over its group of heads by one thread, in order.
  const auto task_of = [&](int64_t segment, int64_t kv) {
    const AttentionSegment& a = plan.segments[segment];
    return plan.task(a, kv * plan.s.group(), q, keys[a.source], values[a.source]);
  };
  int64_t need = 0;
  for (int64_t i = 0; i < std::ssize(plan.segments); ++i)
    need = std::max(need, plan.paired(plan.segments[i]) ? kernels::paired_attention().backward_floats(task_of(i, 0))
                                                        : kernels::attention().scratch_floats(task_of(i, 0)));
  each_with_scratch(std::ssize(plan.segments) * plan.s.kv_heads, need, [&](int64_t item, float* scratch) {
    const int64_t i = item / plan.s.kv_heads, kv = item % plan.s.kv_heads;
    const AttentionSegment& a = plan.segments[i];
    Tensor &dk = *d.dk[a.source], &dv = *d.dv[a.source];
    for (int64_t h = kv * plan.s.group(); h < (kv + 1) * plan.s.group(); ++h) {
      const auto task = plan.task(a, h, q, keys[a.source], values[a.source]);
      const int64_t at = a.query_begin * o.row_size() + h * plan.s.dv;
      const float *y = o.data() + at, *d_y = dy.data() + at, *stat = lse.data() + h * lse.row_size() + a.query_begin;
      float *to_q = dq.data() + a.query_begin * dq.row_size() + h * plan.s.dk,
            *to_k = dk.data() + a.key_begin * dk.row_size() + kv * plan.s.dk,
            *to_v = dv.data() + a.key_begin * dv.row_size() + kv * plan.s.dv;
      if (plan.paired(a))
        kernels::paired_attention().backward(task, panel_kernels(Precision::bf16), packed.of(i, kv), y, d_y, o.row_size(), stat, to_q,
                                             to_k, to_v, dq.row_size(), dk.row_size(), dv.row_size(), scratch);
      else
        kernels::attention().backward(task, y, d_y, o.row_size(), stat, to_q, to_k, to_v, dq.row_size(), dk.row_size(),
                                      dv.row_size(), scratch);
    }
  });
}

}  // namespace

int64_t visible_pairs(const AttentionSegment& s, bool causal, int64_t window, int64_t block) {
  if (!causal && window == 0 && block == 0) return s.queries * s.keys;
  int64_t pairs = 0;
  for (int64_t i = 0; i < s.queries; ++i) {
    int64_t last = causal ? std::min(s.keys - 1, i + s.offset) : s.keys - 1;
    int64_t first = window > 0 ? std::max<int64_t>(0, i + s.offset - window + 1) : 0;
    if (block > 0) {
      const int64_t start = i + s.offset - (s.position + i) % block;
      first = std::max(first, start);
      last = std::min(last, start + block - 1);
    }
    pairs += std::max<int64_t>(0, last - first + 1);
  }
  return pairs;
}

Var attention(const Var& q, std::span<const Var> keys, std::span<const Var> values,
              std::span<const AttentionSegment> segments, const AttentionOptions& options) {
  SENNIT_CHECK(options.kv_heads > 0 && options.heads % options.kv_heads == 0 && keys.size() == values.size());
  Plan plan{.s = {options.heads, options.kv_heads, q.columns() / options.heads, keys.empty() ? 0 : cached_numbers(values[0].value(), options.kv_heads)},
            .options = options,
            .slopes = {options.slopes.begin(), options.slopes.end()},
            .segments = {segments.begin(), segments.end()}};
  plan.options.slopes = {};
  const Shapes& s = plan.s;
  Pooled<Tensor> k, v;
  for (size_t i = 0; i < keys.size(); ++i) {
    check_cached(keys[i], values[i], s.kv_heads, s.dk, s.dv);
    k.push_back(keys[i].value());
    v.push_back(values[i].value());
  }
  int64_t pairs = 0;
  for (const auto& a : segments) pairs += visible_pairs(a, options.causal, options.window, options.block);
  const int64_t flops = 2 * pairs * s.heads * (s.dk + s.dv);
  count_flops(flops);
  Tensor o({q.rows(), s.heads * s.dv}), lse({s.heads, q.rows()});
  forward(plan, q.value(), k, v, o, lse);
  if (!recording()) return Var(std::move(o));

  std::vector<Var> inputs = {q};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  return record_all({o}, inputs, [plan = std::move(plan), q = q.value(), k, v, o, lse, flops](std::span<const Tensor> dys, Gradients& into) {
    const int sources = static_cast<int>(k.size());
    count_flops(flops * 5 / 2);
    std::vector<Tensor*> dk, dv;
    for (int i = 0; i < sources; ++i) dk.push_back(&into.sum(1 + i)), dv.push_back(&into.sum(1 + sources + i));
    backward(plan, q, k, v, o, lse, dys[0], into.sum(0), {dk, dv});
  })[0];
}

}  // namespace sennit
