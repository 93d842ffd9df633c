#include "sequence/sparse_attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

// Queries that share a list of tiles: enough that a tile of a tenth of them is still a product worth its packing.
constexpr int64_t kQueries = 1024;

struct Job {
  size_t segment;
  int64_t head, begin, end;
};

struct SparsePlan {
  int64_t heads, kv_heads, dk, dv;
  float scale;
  Pooled<float> slopes;
  Pooled<AttentionSegment> segments;
  TileSource source;

  TileList tiles(const Job& job) const {
    const AttentionSegment& a = segments[job.segment];
    TileList list({job.begin + a.offset, job.end + a.offset}, a.keys, a.offset);
    source(job.segment, job.head, list);
    return list;
  }

  kernels::SparseAttentionTask task(const Job& job, const Tensor& q, const Tensor& k, const Tensor& v) const {
    const AttentionSegment& a = segments[job.segment];
    const int64_t kv = job.head * kv_heads / heads;
    return {.q = q.data() + a.query_begin * q.row_size() + job.head * dk,
            .k = cached_head(k, a.key_begin, kv, kv_heads),
            .v = cached_head(v, a.key_begin, kv, kv_heads),
            .q_stride = q.row_size(),
            .k_stride = k.row_size(),
            .v_stride = v.row_size(),
            .key_dim = dk,
            .value_dim = dv,
            .offset = a.offset,
            .scale = scale,
            .alibi = slopes.empty() ? 0 : slopes[job.head],
            .begin = job.begin,
            .end = job.end,
            .format = cache_format(k.dtype())};
  }

  int64_t scratch_floats() const {
    int64_t most = 0;
    for (const AttentionSegment& a : segments) most = std::max(most, std::min(kQueries, a.queries));
    return kernels::sparse_attention().scratch_floats({.key_dim = dk, .value_dim = dv, .end = most});
  }
};

template <class Body>
void each_range(const AttentionSegment& a, Body&& body) {
  for (int64_t b = 0; b < a.queries; b += kQueries) body(b, std::min(b + kQueries, a.queries));
}

SparsePlan plan_of(const Var& q, std::span<const Var> keys, std::span<const Var> values,
             std::span<const AttentionSegment> segments, const SparseAttentionOptions& o, TileSource source) {
  SENNIT_CHECK(o.kv_heads > 0 && o.heads % o.kv_heads == 0 && keys.size() == values.size());
  SparsePlan plan{.heads = o.heads,
            .kv_heads = o.kv_heads,
            .dk = q.columns() / o.heads,
            .dv = keys.empty() ? 0 : cached_numbers(values[0].value(), o.kv_heads),
            .scale = o.scale,
            .slopes = {o.slopes.begin(), o.slopes.end()},
            .segments = {segments.begin(), segments.end()},
            .source = std::move(source)};
  for (size_t i = 0; i < keys.size(); ++i) check_cached(keys[i], values[i], o.kv_heads, plan.dk, plan.dv);
  return plan;
}

// Returns the pairs of query and key.
int64_t forward(const SparsePlan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values,
                Tensor& o, Tensor& stat) {
  Pooled<Job> jobs;
  for (size_t i = 0; i < plan.segments.size(); ++i)
    for (int64_t h = 0; h < plan.heads; ++h)
      each_range(plan.segments[i], [&](int64_t b, int64_t e) { jobs.push_back({i, h, b, e}); });
  Pooled<int64_t> pairs(jobs.size());
  each_with_scratch(std::ssize(jobs), plan.scratch_floats(), [&](int64_t i, float* scratch) {
    const AttentionSegment& a = plan.segments[jobs[i].segment];
    auto task = plan.task(jobs[i], q, keys[a.source], values[a.source]);
    const TileList tiles = plan.tiles(jobs[i]);
    tiles.describe(task);
    pairs[i] = kernels::sparse_attention().forward(
        task, o.data() + a.query_begin * o.row_size() + jobs[i].head * plan.dv, o.row_size(),
        stat.data() + jobs[i].head * stat.row_size() + a.query_begin, scratch);
  });
  int64_t sum = 0;
  for (const int64_t p : pairs) sum += p;
  return sum;
}

struct Sources {
  std::span<const Tensor> keys, values;
  std::span<Tensor*> dk, dv;
};

void backward(const SparsePlan& plan, const Tensor& q, const Sources& from, const Tensor& o, const Tensor& stat,
              const Tensor& dy, Tensor& dq) {
  // A key-value head's gradients are summed over its group of heads by one thread, in order.
  const int64_t group = plan.heads / plan.kv_heads;
  each_with_scratch(std::ssize(plan.segments) * plan.kv_heads, plan.scratch_floats(), [&](int64_t i, float* scratch) {
    const size_t segment = static_cast<size_t>(i / plan.kv_heads);
    const int64_t kv = i % plan.kv_heads;
    const AttentionSegment& a = plan.segments[segment];
    Tensor &dk = *from.dk[a.source], &dv = *from.dv[a.source];
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
      each_range(a, [&](int64_t b, int64_t e) {
        const Job job{segment, h, b, e};
        auto task = plan.task(job, q, from.keys[a.source], from.values[a.source]);
        const TileList tiles = plan.tiles(job);
        tiles.describe(task);
        const int64_t at = a.query_begin * o.row_size() + h * plan.dv;
        kernels::sparse_attention().backward(task, o.data() + at, dy.data() + at, o.row_size(),
                                             stat.data() + h * stat.row_size() + a.query_begin,
                                             dq.data() + a.query_begin * dq.row_size() + h * plan.dk,
                                             dk.data() + a.key_begin * dk.row_size() + kv * plan.dk,
                                             dv.data() + a.key_begin * dv.row_size() + kv * plan.dv, dq.row_size(),
                                             dk.row_size(), dv.row_size(), scratch);
      });
  });
}

}  // namespace

void TileList::describe(kernels::SparseAttentionTask& task) const {
  task.tiles = tiles_.data();
  task.tile_count = std::ssize(tiles_);
  task.key_list = key_list_.data();
  task.query_list = query_list_.data();
}

kernels::RowSet TileList::rows_of(Places queries) const {
  const int64_t begin = std::max(queries.begin, queries_.begin), end = std::min(queries.end, queries_.end);
  return {begin - offset_, std::max<int64_t>(0, end - begin)};
}

kernels::RowSet TileList::rows_of(std::span<const int32_t> queries) {
  const int64_t first = std::ssize(query_list_);
  for (const int32_t q : queries)
    if (q >= queries_.begin && q < queries_.end) query_list_.push_back(static_cast<int32_t>(q - offset_));
  return {first, std::ssize(query_list_) - first, true};
}

template <class Queries>
void TileList::add_runs(Places keys, Queries&& queries_of, int64_t near, int64_t far, int64_t column) {
  const int64_t end = std::min(keys.end, keys_);
  for (int64_t b = std::max<int64_t>(0, keys.begin); b < end;) {
    const int64_t e = std::min(end, (b / kernels::kTileKeys + 1) * kernels::kTileKeys);
    const kernels::RowSet queries = queries_of(Places{b, e});
    if (queries.count > 0) tiles_.push_back({{b, e - b}, queries, near, far, column});
    b = e;
  }
}

void TileList::add_lists(std::span<const int32_t> keys, kernels::RowSet queries, int64_t near, int64_t far) {
  if (queries.count == 0) return;
  for (size_t b = 0; b < keys.size(); b += kernels::kTileKeys) {
    const auto part = keys.subspan(b, std::min<size_t>(kernels::kTileKeys, keys.size() - b));
    tiles_.push_back({{std::ssize(key_list_), std::ssize(part), true}, queries, near, far, 0});
    key_list_.insert(key_list_.end(), part.begin(), part.end());
  }
}

void TileList::add(Places keys, Places queries, int64_t near, int64_t far, int64_t column) {
  // Queries that stand too early for a run's first key, or too late for its last, see nothing of it.
  const auto in_band = [&](Places run) {
    return rows_of(Places{std::max(queries.begin, run.begin + near), std::min(queries.end, run.end - 1 + far)});
  };
  add_runs(keys, in_band, near, far, column);
}
void TileList::add(Places keys, std::span<const int32_t> queries, int64_t near, int64_t far, int64_t column) {
  const kernels::RowSet rows = rows_of(queries);
  add_runs(
      keys, [&](Places) { return rows; }, near, far, column);
}
void TileList::add(std::span<const int32_t> keys, Places queries, int64_t near, int64_t far) {
  if (!keys.empty()) queries.begin = std::max(queries.begin, keys.front() + near);
  add_lists(keys, rows_of(queries), near, far);
}
void TileList::add(std::span<const int32_t> keys, std::span<const int32_t> queries, int64_t near, int64_t far) {
  add_lists(keys, rows_of(queries), near, far);
}

TileSource masked_blocks(BlockMask mask) {
  SENNIT_CHECK(mask.block > 0 && std::ssize(mask.shown) == mask.rows * mask.columns);
  return [m = std::move(mask)](size_t, int64_t, TileList& tiles) {
    const Places q = tiles.queries();
    const int64_t end = std::min((q.end + m.block - 1) / m.block, m.rows);
    for (int64_t i = q.begin / m.block; i < end; ++i)
      for (int64_t j = 0; j < m.columns; ++j)
        if (m.shown[static_cast<size_t>(i * m.columns + j)])
          tiles.add(Places{j * m.block, (j + 1) * m.block}, Places{i * m.block, (i + 1) * m.block},
                    m.causal ? 0 : -kEverywhere);
  };
}

Var sparse_attention(const Var& q, std::span<const Var> keys, std::span<const Var> values,
                     std::span<const AttentionSegment> segments, const SparseAttentionOptions& options,
                     TileSource source) {
  SparsePlan plan = plan_of(q, keys, values, segments, options, std::move(source));
  Pooled<Tensor> k, v;
  for (const Var& x : keys) k.push_back(x.value());
  for (const Var& x : values) v.push_back(x.value());
  Tensor o({q.rows(), plan.heads * plan.dv}), stat({plan.heads, q.rows()});
  const int64_t flops = 2 * forward(plan, q.value(), k, v, o, stat) * (plan.dk + plan.dv);
  count_flops(flops);
  if (!recording()) return Var(std::move(o));

  std::vector<Var> inputs = {q};
  inputs.insert(inputs.end(), keys.begin(), keys.end());
  inputs.insert(inputs.end(), values.begin(), values.end());
  return record_all(
      {o}, inputs,
      [plan = std::move(plan), q = q.value(), k, v, o, stat, flops](std::span<const Tensor> dys, Gradients& into) {
        const int sources = static_cast<int>(k.size());
        count_flops(flops * 5 / 2);
        std::vector<Tensor*> dk, dv;
        for (int i = 0; i < sources; ++i) dk.push_back(&into.sum(1 + i)), dv.push_back(&into.sum(1 + sources + i));
        backward(plan, q, {k, v, dk, dv}, o, stat, dys[0], into.sum(0));
      })[0];
}

Tensor log_sums(const Var& q, std::span<const Var> keys, std::span<const Var> values,
                std::span<const AttentionSegment> segments, const SparseAttentionOptions& options, TileSource source) {
  const SparsePlan plan = plan_of(q, keys, values, segments, options, std::move(source));
  Pooled<Tensor> k, v;
  for (const Var& x : keys) k.push_back(x.value());
  for (const Var& x : values) v.push_back(x.value());
  Tensor o({q.rows(), plan.heads * plan.dv}), stat({plan.heads, q.rows()});
  count_flops(2 * forward(plan, q.value(), k, v, o, stat) * (plan.dk + plan.dv));
  return stat;
}

Tensor block_maxima(const Tensor& q, const Tensor& keys, const Tensor& values, const AttentionSegment& segment,
                    const SparseAttentionOptions& options, int64_t block) {
  const int64_t blocks = (segment.keys + block - 1) / block, heads = options.heads;
  const Var rows(q), k(keys), v(values);
  const SparsePlan plan = plan_of(rows, {&k, 1}, {&v, 1}, {&segment, 1}, options, [=](size_t, int64_t, TileList& tiles) {
    const int64_t step = std::min(block, kernels::kTileKeys);
    for (int64_t b = 0; b < segment.keys; b += step)
      tiles.add({b, b + step}, tiles.queries(), 0, kEverywhere, b / block);
  });
  Tensor maxima = Tensor::full({segment.queries, heads, blocks}, -INFINITY);
  Tensor o({q.rows(), heads * plan.dv}), stat({heads, q.rows()});
  Pooled<Job> jobs;
  for (int64_t h = 0; h < heads; ++h) each_range(segment, [&](int64_t b, int64_t e) { jobs.push_back({0, h, b, e}); });
  each_with_scratch(std::ssize(jobs), plan.scratch_floats(), [&](int64_t i, float* scratch) {
    const Job& job = jobs[i];
    auto task = plan.task(job, q, keys, values);
    const TileList tiles = plan.tiles(job);
    tiles.describe(task);
    task.tops = maxima.data() + (job.begin * heads + job.head) * blocks;
    task.tops_stride = heads * blocks;
    float* const lse = stat.data() + job.head * q.rows() + segment.query_begin;
    kernels::sparse_attention().forward(task, o.data() + segment.query_begin * o.row_size() + job.head * plan.dv,
                                        o.row_size(), lse, scratch);
    for (int64_t r = job.begin; r < job.end; ++r)
      for (int64_t b = 0; b < blocks; ++b) {
        float& top = maxima.data()[(r * heads + job.head) * blocks + b];
        top = top == -INFINITY ? 0 : std::exp(top - lse[r]);
      }
  });
  return maxima;
}

}  // namespace sennit
