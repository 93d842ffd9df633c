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
  Pooled<int64_t> firsts = {};  // the first head of each group, and `heads`

  int64_t kv_of(int64_t head) const {
    return std::upper_bound(firsts.begin(), firsts.end(), head) - firsts.begin() - 1;
  }
  int64_t largest() const {  // group
    int64_t most = 0;
    for (int64_t kv = 0; kv < kv_heads; ++kv) most = std::max(most, firsts[kv + 1] - firsts[kv]);
    return most;
  }
};

struct AttentionPlan {
  Shapes s;
  AttentionOptions options;
  Pooled<float> slopes;
  Pooled<AttentionSegment> segments;

  bool paired(const AttentionSegment& a) const {
    return options.paired && options.map == ScoreMap::softmax && a.queries >= kLeastPairedQueries;
  }
  kernels::AttentionTask task(const AttentionSegment& a, int64_t head, const Tensor& q, const Tensor& k, const Tensor& v) const {
    const int64_t kv = s.kv_of(head);
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
            .format = cache_format(k.dtype()),
            .exact = options.exact};
  }
};

struct QueryTile {
  size_t segment;
  int64_t head, begin, end;
};

// The keys and values of the paired segments, packed for all queries.
class PackedKeys {
 public:
  PackedKeys(const AttentionPlan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values, bool for_backward)
      : heads_(plan.s.kv_heads) {
    if (std::none_of(plan.segments.begin(), plan.segments.end(), [&](const AttentionSegment& a) { return plan.paired(a); })) return;
    const kernels::PairedAttention& kernel = kernels::paired_attention();
    Pooled<Tensor> k(keys.size()), v(keys.size());  // as floats, where a paired segment looks at them
    for (const AttentionSegment& a : plan.segments)
      if (plan.paired(a) && !k[a.source].defined())
        k[a.source] = widened(keys[a.source], heads_), v[a.source] = widened(values[a.source], heads_);
    const auto task = [&](int64_t i, int64_t kv) {
      const AttentionSegment& a = plan.segments[i];
      return plan.task(a, plan.s.firsts[kv], q, k[a.source], v[a.source]);
    };
    Pooled<QueryTile> pieces;
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
        const QueryTile& piece = pieces[p];
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

// Queries [begin, end) of a head of a segment, or the one query of `heads` neighbours that share keys and values, which
// then are the task's rows.
struct Rows {
  size_t segment;
  int64_t head, heads, begin, end;
};

kernels::AttentionTask task_of(const AttentionPlan& plan, const Rows& rows, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values) {
  const AttentionSegment& a = plan.segments[rows.segment];
  auto task = plan.task(a, rows.head, q, keys[a.source], values[a.source]);
  if (rows.heads > 1) task.queries = rows.heads, task.q_stride = plan.s.dk, task.together = true;
  return task;
}

// How many heads of a group go together where each has one query: all that leave every thread some of `spans`.
int64_t heads_together(const AttentionPlan& plan, int64_t spans) {
  if (recording() || !plan.slopes.empty()) return 1;
  const int64_t others = std::max<int64_t>(1, plan.s.kv_heads * spans),
                parts = std::clamp<int64_t>((thread_count() + others - 1) / others, 1, plan.s.largest());
  return (plan.s.largest() + parts - 1) / parts;
}

// A piece of the forward pass, in plain numbers that go to other threads as they are.
struct Piece {
  int64_t first, heads = 1;  // tasks that go together
  int64_t begin, end;        // rows of each
  float *o, *stat;           // of row 0 of the first; no stat where heads are rows: what they leave is not asked for
  int64_t o_stride;
  const float* packed = nullptr;  // keys and values of paired rows
  // One span of the keys: where its sums of the first task begin, how far those of the next are from there.
  int64_t span = -1, sums = 0, sums_apart = 0;
};

struct Pieces {
  const kernels::AttentionTask* tasks;
  const Piece* pieces;
  float* sums;
  int64_t unused;  // where scratch has room for a stat

  void operator()(int64_t i, float* scratch) const {
    const Piece& p = pieces[i];
    const kernels::AttentionTask& task = tasks[p.first];
    float* const stat = p.stat ? p.stat : scratch + unused;
    if (p.span >= 0)
      kernels::attention().forward_span(&task, p.heads, p.begin, p.end, p.span, sums + p.sums, p.sums_apart, scratch);
    else if (p.packed)
      kernels::paired_attention().forward(task, panel_kernels(Precision::bf16), p.packed, p.begin, p.end, p.o, p.o_stride, stat, scratch);
    else
      kernels::attention().forward(task, p.begin, p.end, p.o, p.o_stride, stat, scratch);
  }
};

struct Folds : Pieces {
  void operator()(int64_t i, float* scratch) const {
    const Piece& p = pieces[i];
    kernels::attention().fold_spans(tasks[p.first], p.begin, p.end, sums + p.sums, p.o, p.o_stride, p.stat ? p.stat : scratch);
  }
};

// The forward pass: one piece for each tile of queries, and where they are few, for each span of the keys that they see.
class Forward {
 public:
  Forward(const AttentionPlan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values, Tensor& o, Tensor& lse)
      : plan_(plan), q_(q), keys_(keys), values_(values), o_(o), lse_(lse), packed_(plan, q, keys, values, false) {
    deal();
  }
  void run() const {
    Tensor sums({sums_});
    const int64_t stats = std::max(plan_.s.largest(), kFewQueries);
    const Pieces work{tasks_.data(), pieces_.data(), sums.data(), scratch_};
    if (sums_ == 0) return each_with_scratch(std::ssize(pieces_), scratch_ + stats, work);
    equal_runs_with_scratch(std::ssize(pieces_), scratch_ + stats, work);
    equal_runs_with_scratch(std::ssize(split_), stats, Folds{{tasks_.data(), split_.data(), work.sums, 0}});
  }

 private:
  static constexpr int64_t kFewQueries = 16;  // whose keys are worth splitting

  bool few(const AttentionSegment& a) const { return a.queries <= kFewQueries && !plan_.paired(a); }
  int64_t spans(size_t segment) const {
    return few(plan_.segments[segment]) ? kernels::attention().spans(task_of(plan_, {segment, 0, 1, 0, 0}, q_, keys_, values_)) : 1;
  }

  void deal() {
    int64_t spans_of_all = 0;
    for (size_t i = 0; i < plan_.segments.size(); ++i) spans_of_all += spans(i);
    const int64_t together = heads_together(plan_, spans_of_all);
    for (size_t i = 0; i < plan_.segments.size(); ++i) {
      const int64_t queries = plan_.segments[i].queries, parts = spans(i), first = std::ssize(split_);
      for (int64_t h = 0, heads; h < plan_.s.heads; h += heads) {
        heads = queries == 1 ? std::min(together, plan_.s.firsts[plan_.s.kv_of(h) + 1] - h) : 1;
        for (int64_t b = 0; b < queries; b += kQueryTile) add({i, h, heads, b, std::min(b + kQueryTile, queries)}, parts);
      }
      deal_spans(plan_.segments[i], first, parts);
    }
  }
  // One piece for each span of the rows from split_[first] on, or for those of neighbours that are alike: their heads'
  // keys and values stand in the same rows of memory, of which a thread then reads a good part at a time.
  void deal_spans(const AttentionSegment& a, int64_t first, int64_t spans) {
    const int64_t end = std::ssize(split_), abreast = first < end ? heads_abreast(a, end - first, spans, split_[first]) : 1;
    const auto alike = [&](int64_t k, int64_t other) { return split_[k].end - split_[k].begin == split_[other].end - split_[other].begin; };
    for (int64_t span = 0; span < spans; ++span)
      for (int64_t k = first, next; k < end; k = next) {
        for (next = k + 1; next < std::min(end, k + abreast) && alike(k, next);) ++next;
        Piece piece = split_[k];
        piece.heads = next - k, piece.span = span, piece.sums += span * sums_of(piece);
        piece.sums_apart = spans * sums_of(piece);
        pieces_.push_back(piece);
      }
  }
  // So few that every thread has some pieces.
  int64_t heads_abreast(const AttentionSegment& a, int64_t splits, int64_t spans, const Piece& rows) const {
    constexpr int64_t kRowBytes = 1024, kPiecesEach = 4;
    const Tensor& k = keys_[a.source];
    const int64_t near = splits * kRowBytes * k.rows() / std::max<int64_t>(1, k.bytes()),
                  enough = splits * spans / (kPiecesEach * thread_count()),
                  most = kernels::kAttentionRows / (rows.end - rows.begin);
    return std::max<int64_t>(1, std::min({near, enough, most}));
  }
  int64_t sums_of(const Piece& rows) const { return (rows.end - rows.begin) * (plan_.s.dv + 2); }
  void add(const Rows& rows, int64_t spans) {
    const AttentionSegment& a = plan_.segments[rows.segment];
    const bool paired = plan_.paired(a), heads = rows.heads > 1;
    tasks_.push_back(task_of(plan_, rows, q_, keys_, values_));
    scratch_ = std::max(scratch_, paired ? kernels::paired_attention().forward_floats(tasks_.back()) : kernels::attention().scratch_floats(tasks_.back()));
    Piece piece{.first = std::ssize(tasks_) - 1,
                .begin = heads ? 0 : rows.begin,
                .end = heads ? rows.heads : rows.end,
                .o = o_.data() + a.query_begin * o_.row_size() + rows.head * plan_.s.dv,
                .stat = heads ? nullptr : lse_.data() + rows.head * lse_.row_size() + a.query_begin,
                .o_stride = heads ? plan_.s.dv : o_.row_size(),
                .packed = paired ? packed_.of(static_cast<int64_t>(rows.segment), plan_.s.kv_of(rows.head)) : nullptr};
    if (spans == 1) return pieces_.push_back(piece);
    piece.sums = sums_;
    sums_ += spans * sums_of(piece);
    split_.push_back(piece);
  }

  const AttentionPlan& plan_;
  const Tensor& q_;
  std::span<const Tensor> keys_, values_;
  Tensor &o_, &lse_;
  PackedKeys packed_;
  Pooled<kernels::AttentionTask> tasks_;
  Pooled<Piece> pieces_, split_;  // what to do; rows whose spans are folded afterwards
  int64_t sums_ = 0, scratch_ = 0;
};

struct Slots {
  std::span<Tensor*> dk, dv;  // one for each source
};

void backward(const AttentionPlan& plan, const Tensor& q, std::span<const Tensor> keys, std::span<const Tensor> values, const Tensor& o,
              const Tensor& lse, const Tensor& dy, Tensor& dq, const Slots& d) {
  const PackedKeys packed(plan, q, keys, values, true);
  // A key-value head's gradients are summed over its group of heads by one thread, in order.
  const auto task_of = [&](int64_t segment, int64_t kv) {
    const AttentionSegment& a = plan.segments[segment];
    return plan.task(a, plan.s.firsts[kv], q, keys[a.source], values[a.source]);
  };
  int64_t need = 0;
  for (int64_t i = 0; i < std::ssize(plan.segments); ++i)
    need = std::max(need, plan.paired(plan.segments[i]) ? kernels::paired_attention().backward_floats(task_of(i, 0))
                                                        : kernels::attention().scratch_floats(task_of(i, 0)));
  each_with_scratch(std::ssize(plan.segments) * plan.s.kv_heads, need, [&](int64_t item, float* scratch) {
    const int64_t i = item / plan.s.kv_heads, kv = item % plan.s.kv_heads;
    const AttentionSegment& a = plan.segments[i];
    Tensor &dk = *d.dk[a.source], &dv = *d.dv[a.source];
    for (int64_t h = plan.s.firsts[kv]; h < plan.s.firsts[kv + 1]; ++h) {
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
  const auto groups = options.groups;
  SENNIT_CHECK(options.kv_heads > 0 && keys.size() == values.size());
  SENNIT_CHECK(groups.empty() ? options.heads % options.kv_heads == 0 : std::ssize(groups) == options.kv_heads);
  AttentionPlan plan{.s = {options.heads, options.kv_heads, q.columns() / options.heads, keys.empty() ? 0 : cached_numbers(values[0].value(), options.kv_heads)},
            .options = options,
            .slopes = {options.slopes.begin(), options.slopes.end()},
            .segments = {segments.begin(), segments.end()}};
  for (int64_t kv = 0, first = 0; kv <= options.kv_heads; ++kv) {
    plan.s.firsts.push_back(first);
    if (kv < options.kv_heads) first += groups.empty() ? options.heads / options.kv_heads : groups[kv];
  }
  SENNIT_CHECK(plan.s.firsts.back() == options.heads, "groups of {} heads for {}", plan.s.firsts.back(), options.heads);
  plan.options.slopes = {}, plan.options.groups = {};
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
  Forward(plan, q.value(), k, v, o, lse).run();
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
