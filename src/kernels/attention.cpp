#include "kernels/attention.h"

#include "kernels/attention_tile.h"
#include "kernels/cached_lanes.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

SENNIT_INLINE vf to_power(vf x, int64_t power) {
  const vf square = x * x;
  vf y = square;
  for (int64_t i = 2; i < power; i += 2) y = y * square;
  return y;
}

SENNIT_INLINE float keys_seen(const AttentionTask& t, int64_t query) {
  const Range range = seen(t, query);
  return static_cast<float>(larger(1, range.end - range.begin));
}

// A row's weights from its scores, once its statistic is known, and the gradients of its scores from those of its
// weights.
template <ScoreMap M>
struct RowMap {
  int64_t power;
  float stat, low = 0, spread = 0;
  RowMap(const AttentionTask& t, int64_t query, float statistic) : power(t.power), stat(statistic) {
    if constexpr (M == ScoreMap::clipped) low = -t.clip_low / keys_seen(t, query), spread = t.clip_high - low;
  }
  SENNIT_INLINE vf soft(vf s) const { return stat == kNothing ? zero() : exp(s - set(stat)); }
  SENNIT_INLINE vf unclipped(vf s) const { return fma(set(spread), soft(s), set(low)); }
  SENNIT_INLINE vf weight(vf s) const {
    if constexpr (M == ScoreMap::softmax) return soft(s);
    if constexpr (M == ScoreMap::clipped) return min(max(unclipped(s), zero()), set(1));
    if constexpr (M == ScoreMap::sigmoid) return set(1) / (set(1) + exp(set(stat) - s));
    if constexpr (M == ScoreMap::power) return stat == 0 ? zero() : to_power(s * set(1 / stat), power);
  }
  // dw, where the clip lets it through, on the scale of the softmax.
  SENNIT_INLINE vf passed(vf s, vf dw) const {
    const vf w = unclipped(s), inside = select(less(zero(), w), dw * set(spread), zero());
    return select(less(w, set(1)), inside, zero());
  }
  // `delta` is sum_j of weight and dw; of the clipped softmax, of soft and passed.
  SENNIT_INLINE vf slope(vf s, vf dw, float delta) const {
    if constexpr (M == ScoreMap::softmax) return soft(s) * (dw - set(delta));
    if constexpr (M == ScoreMap::clipped) return soft(s) * (passed(s, dw) - set(delta));
    if constexpr (M == ScoreMap::sigmoid) {
      const vf w = weight(s);
      return w * (set(1) - w) * dw;
    }
    if constexpr (M == ScoreMap::power) {
      if (stat == 0) return zero();
      const vf x = s * set(1 / stat);
      const vf odd = power == 2 ? x : x * to_power(x, power - 2);
      return odd * set(static_cast<float>(power) / stat) * (dw - set(delta));
    }
  }
};

// Calls body(RowMap) of the task's map.
template <class Body>
SENNIT_INLINE void with_map(const AttentionTask& t, int64_t query, float stat, const Body& body) {
  switch (t.map) {
    case ScoreMap::softmax:
      return body(RowMap<ScoreMap::softmax>(t, query, stat));
    case ScoreMap::clipped:
      return body(RowMap<ScoreMap::clipped>(t, query, stat));
    case ScoreMap::sigmoid:
      return body(RowMap<ScoreMap::sigmoid>(t, query, stat));
    case ScoreMap::power:
      return body(RowMap<ScoreMap::power>(t, query, stat));
  }
}

// What a walk over the keys does: sum weights and values as they come; sum weights only, to know the statistic; or sum
// values by weights of a known statistic, kept in `top`.
enum class Pass { running, measuring, mapping };

// Turns a row of products into powers and brings what was summed before to the new maximum.
void weigh_powers(const Scores& scores, int64_t power, float* row, Running& running, float* o, int64_t value_dim) {
  vf highest_lane = zero();
  for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
    const vf s = scores.at(row, j);
    store(row + j, s);
    highest_lane = max(highest_lane, abs(s));
  }
  const float block_top = highest(highest_lane);
  if (block_top > running.top) {
    const float shrink = highest(to_power(set(running.top / block_top), power));
    running.top = block_top;
    running.total *= shrink;
    scale_row(o, shrink, value_dim);
  }
  const vf factor = set(running.top == 0 ? 0 : 1 / running.top);
  vf total = zero();
  for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
    const vf p = to_power(load(row + j) * factor, power);
    store(row + j, p);
    total = total + p;
  }
  running.total += sum(total);
}

Scores scores_of(const AttentionTask& t, int64_t query, int64_t first_key) {
  return {t.scale, t.alibi, t.map == ScoreMap::power ? 0 : kNothing, place(t, query) + t.offset - first_key,
          seen_of_block(t, query, first_key)};
}

void weigh(const AttentionTask& t, Pass pass, int64_t query, const Scores& scores, float* row, Running& running,
           float* o) {
  if (pass == Pass::mapping)
    return with_map(t, query, running.top, [&](const auto& map) {
      if (scores.whole()) {
        for (int64_t j = 0; j < kKeys; j += kLanes) store(row + j, map.weight(scores.bare(row, j)));
        return;
      }
      for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
        const vf key = scores.lane + set(static_cast<float>(j));
        const vf w =
            select(less(key, set(static_cast<float>(scores.range.begin))), zero(), map.weight(scores.at(row, j)));
        store(row + j, select(less(key, set(static_cast<float>(scores.range.end))), w, zero()));
      }
    });
  const int64_t value_dim = pass == Pass::running ? t.value_dim : 0;
  if (t.map == ScoreMap::power) return weigh_powers(scores, t.power, row, running, o, value_dim);
  weigh_exponentials(scores, row, running, o, value_dim);
}

struct ForwardScratch {
  float *keys, *values, *weights;  // [key_dim, kKeys], [kKeys, value_dim], [kRows, kKeys]
  float* sums;                     // [kRows, value_dim]: of a later span
  float* parts;                    // [kRows, key_dim]: queries as dot_lanes wants them
  Running *running, *of_span;      // [kRows]
  ForwardScratch(const AttentionTask& t, float* scratch)
      : keys(scratch),
        values(keys + t.key_dim * kKeys),
        weights(values + t.value_dim * kKeys),
        sums(weights + kRows * kKeys),
        parts(sums + kRows * t.value_dim),
        running(reinterpret_cast<Running*>(parts + kRows * t.key_dim)),
        of_span(running + kRows) {}
};

// A block of values: where they stand, or widened.
struct Values {
  const float* data;
  int64_t stride;
};

// Rows [first, first + rows), o of the first, against one block of keys, of which each sees something.
void forward_block(const AttentionTask& t, Pass pass, int64_t first, int64_t rows, int64_t first_key, Values values,
                   float* o, int64_t o_stride, float* keys, float* weights, Running* running) {
  multiply({.a = t.q + first * t.q_stride,
            .a_row = t.q_stride,
            .a_step = 1,
            .b = keys,
            .b_stride = kKeys,
            .c = weights,
            .c_stride = kKeys,
            .rows = rows,
            .columns = kKeys,
            .k = t.key_dim,
            .accumulate = false});
  for (int64_t r = 0; r < rows; r += kTileRows) {
    Range ranges[kTileRows];
    const int64_t group = smaller(kTileRows, rows - r);
    for (int64_t g = 0; g < group; ++g) {
      const Scores scores = scores_of(t, first + r + g, first_key);
      ranges[g] = scores.range;
      weigh(t, pass, first + r + g, scores, weights + (r + g) * kKeys, running[r + g], o + (r + g) * o_stride);
    }
    if (pass == Pass::measuring) continue;
    add_values({.a = weights + r * kKeys,
                .a_row = kKeys,
                .a_step = 1,
                .b = values.data,
                .b_stride = values.stride,
                .c = o + r * o_stride,
                .c_stride = o_stride,
                .rows = group,
                .columns = t.value_dim,
                .k = 0,
                .accumulate = true},
               ranges);
  }
}

// Heads whose tasks differ in what they read and in their slopes alone, and where their rows go.
struct Heads {
  const AttentionTask* tasks;
  int64_t count;
  float* o;  // of the first head's first row
  int64_t apart, o_stride;
  Running* running;  // [heads, rows]

  SENNIT_INLINE float* rows_of(int64_t head, int64_t row) const { return o + head * apart + row * o_stride; }
};

// The same for so few rows that a panel of keys and widened values would cost more than what they save: first + rows of
// `all`, whose queries are in parts where those are given. The heads take turns at each step, as their keys and values
// stand side by side.
constexpr int64_t kFewRows = 8;
static_assert(kKeys <= kCodeRows);
void forward_few(const Heads& h, Pass pass, int64_t first, int64_t from, int64_t rows, int64_t all, int64_t first_key,
                 float* parts, float* weights) {
  const int64_t keys = smaller(kKeys, h.tasks[0].keys - first_key);
  const auto of_head = [&](int64_t i) { return weights + i * rows * kKeys; };
  for (int64_t i = 0; i < h.count; ++i) {
    const AttentionTask& t = h.tasks[i];
    const CachedRows key_rows{t.k, t.k_stride, t.format, first_key};
    if (parts != nullptr)
      dot_lanes(parts + (i * all + from) * t.key_dim, rows, key_rows, keys, t.key_dim, of_head(i), kKeys);
    else
      dot_rows({t.q + (first + from) * t.q_stride, t.q_stride, rows}, key_rows, keys, t.key_dim, of_head(i), kKeys);
  }
  for (int64_t i = 0; i < h.count; ++i) {
    const AttentionTask& t = h.tasks[i];
    const CachedRows values{t.v, t.v_stride, t.format, first_key};
    float* const o = h.rows_of(i, from);
    Range ranges[kFewRows];
    for (int64_t r = 0; r < rows; ++r) {
      const Scores scores = scores_of(t, first + from + r, first_key);
      ranges[r] = scores.range;
      weigh(t, pass, first + from + r, scores, of_head(i) + r * kKeys, h.running[i * all + from + r],
            o + r * h.o_stride);
    }
    if (pass == Pass::measuring) continue;
    for (int64_t r = 0, next; r < rows; r = next) {  // rows that see the same keys go together
      for (next = r + 1; next < rows && ranges[next] == ranges[r];) ++next;
      (t.exact ? add_rows : add_lanes)({of_head(i) + r * kKeys, kKeys, next - r}, values, ranges[r].begin,
                                       ranges[r].end, t.value_dim, o + r * h.o_stride, h.o_stride);
    }
  }
}

// Null where products are summed in order.
float* queries_in_parts(const Heads& h, int64_t first, int64_t rows, const ForwardScratch& s) {
  const AttentionTask& all = h.tasks[0];
  if (all.exact || !whole_units(all.format, all.key_dim)) return nullptr;
  for (int64_t i = 0; i < h.count; ++i)
    part_queries({h.tasks[i].q + first * all.q_stride, all.q_stride, rows}, all.format, all.key_dim,
                 s.parts + i * rows * all.key_dim);
  return s.parts;
}

// All keys, or those of a span, which begins and ends with a block.
void walk_keys(const Heads& h, Pass pass, int64_t first, int64_t rows, Range span, const ForwardScratch& s) {
  const AttentionTask& all = h.tasks[0];  // in what they see
  float* parts = nullptr;
  const int64_t end = smaller(span.end, seen(all, first + rows - 1).end);
  for (int64_t j = larger(span.begin, seen(all, first).begin / kKeys * kKeys); j < end; j += kKeys) {
    int64_t from = 0, to = rows;  // the rows that see something of the block
    while (from < to && seen(all, first + from).end <= j) ++from;
    while (from < to && seen(all, first + to - 1).begin >= j + kKeys) --to;
    if (from == to) continue;
    if (to - from <= kFewRows) {
      if (parts == nullptr) parts = queries_in_parts(h, first, rows, s);
      forward_few(h, pass, first, from, to - from, rows, j, parts, s.weights);
      continue;
    }
    const int64_t keys = smaller(kKeys, all.keys - j);
    for (int64_t i = 0; i < h.count; ++i) {
      const AttentionTask& t = h.tasks[i];
      pack_cached({t.k, t.k_stride, t.format, j}, keys, t.key_dim, s.keys, kKeys);
      Values values{static_cast<const float*>(t.v) + j * t.v_stride, t.v_stride};
      if (t.format != CacheFormat::f32) {
        if (pass != Pass::measuring) widen_cached({t.v, t.v_stride, t.format, j}, keys, t.value_dim, s.values);
        values = {s.values, t.value_dim};
      }
      forward_block(t, pass, first + from, to - from, j, values, h.rows_of(i, from), h.o_stride, s.keys, s.weights,
                    h.running + i * rows + from);
    }
  }
}

bool splits(const AttentionTask& t) {
  return t.map == ScoreMap::softmax && t.window == 0 && t.block == 0;
}

int64_t spans(const AttentionTask& t) {
  const int64_t end = t.queries > 0 && splits(t) ? seen(t, t.queries - 1).end : 0;
  return larger(1, (end + kAttentionSpan - 1) / kAttentionSpan);
}

// Rows [first, first + rows) of one span, from nothing.
void walk_span(const Heads& h, int64_t first, int64_t rows, int64_t span, const ForwardScratch& s) {
  for (int64_t i = 0; i < h.count; ++i)
    for (int64_t r = 0; r < rows; ++r) start_row(h.running[i * rows + r], h.rows_of(i, r), h.tasks[0].value_dim);
  walk_keys(h, Pass::running, first, rows, {span * kAttentionSpan, (span + 1) * kAttentionSpan}, s);
}

float finish_softmax(const AttentionTask& t, Running r, float* o) {
  if (r.total != 0) scale_row(o, 1 / r.total, t.value_dim);
  return log_sum(r);
}

void forward_softmax(const AttentionTask& t, int64_t first, int64_t rows, float* o, int64_t o_stride, float* stat,
                     const ForwardScratch& s) {
  walk_span({&t, 1, o, 0, o_stride, s.running}, first, rows, 0, s);
  const int64_t end = seen(t, first + rows - 1).end;
  for (int64_t span = 1; span * kAttentionSpan < end; ++span) {
    walk_span({&t, 1, s.sums, 0, t.value_dim, s.of_span}, first, rows, span, s);
    for (int64_t r = 0; r < rows; ++r)
      merge(s.running[r], o + r * o_stride, s.of_span[r], s.sums + r * t.value_dim, t.value_dim);
  }
  for (int64_t r = 0; r < rows; ++r) stat[r] = finish_softmax(t, s.running[r], o + r * o_stride);
}

void forward_span(const AttentionTask* tasks, int64_t heads, int64_t begin, int64_t end, int64_t span, float* sums,
                  int64_t sums_apart, float* scratch) {
  const ForwardScratch s(tasks[0], scratch);
  const int64_t value_dim = tasks[0].value_dim, row = value_dim + 2, rows = end - begin;
  walk_span({tasks, heads, sums, sums_apart, row, s.of_span}, begin, rows, span, s);
  for (int64_t i = 0; i < heads * rows; ++i) {
    float* const last = sums + i / rows * sums_apart + i % rows * row + value_dim;
    last[0] = s.of_span[i].top, last[1] = s.of_span[i].total;
  }
}

void fold_spans(const AttentionTask& t, int64_t begin, int64_t end, const float* sums, float* o, int64_t o_stride,
                float* stat) {
  const int64_t row = t.value_dim + 2, rows = end - begin, parts = spans(t);
  for (int64_t r = 0; r < rows; ++r) {
    const auto of = [&](int64_t span) { return sums + (span * rows + r) * row; };
    const auto running = [&](int64_t span) { return Running{of(span)[t.value_dim], of(span)[t.value_dim + 1]}; };
    float* const to = o + (begin + r) * o_stride;
    Running sum;
    start_row(sum, to, t.value_dim);
    for (int64_t span = 0; span < parts; ++span) merge(sum, to, running(span), of(span), t.value_dim);
    stat[begin + r] = finish_softmax(t, sum, to);
  }
}

// Divides a row by its sum of powers and gives that sum's root.
float finish_powers(const AttentionTask& t, Running r, float* o) {
  const float epsilon = t.epsilon == 0 ? 0 : t.epsilon / highest(to_power(set(r.top), t.power)),
              total = r.total + epsilon;
  scale_row(o, r.total == 0 ? 0 : 1 / total, t.value_dim);
  return r.total == 0 ? 0 : r.top * exp_of(log_of(total) / static_cast<float>(t.power));
}

// The same of other maps, and of queries that see a window: all keys in one walk. o and stat are those of the first
// row.
void forward_rows(const AttentionTask& t, int64_t first, int64_t rows, float* o, int64_t o_stride, float* stat,
                  const ForwardScratch& s) {
  const Range all{0, t.keys};
  const Heads head{&t, 1, o, 0, o_stride, s.running};
  for (int64_t r = 0; r < rows; ++r) {
    start_row(s.running[r], o + r * o_stride, t.value_dim);
    if (t.map == ScoreMap::power) s.running[r].top = 0;
  }
  if (t.map == ScoreMap::clipped) {
    walk_keys(head, Pass::measuring, first, rows, all, s);
    for (int64_t r = 0; r < rows; ++r) s.running[r].top = log_sum(s.running[r]);
  }
  if (t.map == ScoreMap::sigmoid)
    for (int64_t r = 0; r < rows; ++r) s.running[r].top = t.count_bias * log_of(keys_seen(t, first + r));
  const bool mapped = t.map == ScoreMap::clipped || t.map == ScoreMap::sigmoid;
  walk_keys(head, mapped ? Pass::mapping : Pass::running, first, rows, all, s);
  for (int64_t r = 0; r < rows; ++r) {
    float* const row = o + r * o_stride;
    stat[r] = mapped                     ? s.running[r].top
              : t.map == ScoreMap::power ? finish_powers(t, s.running[r], row)
                                         : finish_softmax(t, s.running[r], row);
  }
}

void forward(const AttentionTask& t, int64_t begin, int64_t end, float* o, int64_t o_stride, float* stat,
             float* scratch) {
  const ForwardScratch s(t, scratch);
  for (int64_t i = begin; i < end; i += kRows)
    (splits(t) ? forward_softmax : forward_rows)(t, i, smaller(kRows, end - i), o + i * o_stride, o_stride, stat + i,
                                                 s);
}

struct BackwardScratch {
  float *keys, *values;     // [key_dim, kKeys], [value_dim, kKeys]
  float *weights, *slopes;  // [kRows, kKeys]: w, and ds times scale
  float* delta;             // [queries], see RowMap::slope
  BackwardScratch(const AttentionTask& t, float* scratch)
      : keys(scratch),
        values(keys + t.key_dim * kKeys),
        weights(values + t.value_dim * kKeys),
        slopes(weights + kRows * kKeys),
        delta(slopes + kRows * kKeys) {}
};

// Rows of products q . k and do . v become rows of w and scale ds; zeros where the query does not see the key. A
// softmax over one key is 1 whatever its score: no gradient, not what rounding leaves of one.
void weigh_slopes(const AttentionTask& t, int64_t first, int64_t rows, int64_t first_key, const float* stat,
                  const BackwardScratch& s) {
  for (int64_t r = 0; r < rows; ++r)
    with_map(t, first + r, stat[first + r], [&](const auto& map) {
      const Scores scores = scores_of(t, first + r, first_key);
      const vf factor = set(t.map == ScoreMap::softmax && t.keys == 1 ? 0 : scores.scale);
      const vf early = set(static_cast<float>(scores.range.begin)), late = set(static_cast<float>(scores.range.end));
      float *weights = s.weights + r * kKeys, *slopes = s.slopes + r * kKeys;
      for (int64_t j = 0; j < kKeys; j += kLanes) {
        const vf score = scores.at(weights, j), key = scores.lane + set(static_cast<float>(j));
        const auto if_seen = [&](vf x) { return select(less(key, early), zero(), select(less(key, late), x, zero())); };
        const vf ds = map.slope(score, load(slopes + j), s.delta[first + r]);
        store(weights + j, if_seen(map.weight(score)));
        store(slopes + j, if_seen(ds * factor));
      }
    });
}

// The clipped softmax's delta: a clip lets only a part of dw through.
void add_clipped_delta(const AttentionTask& t, int64_t first, int64_t rows, int64_t first_key, const float* stat,
                       const BackwardScratch& s) {
  for (int64_t r = 0; r < rows; ++r) {
    const RowMap<ScoreMap::clipped> map(t, first + r, stat[first + r]);
    const Scores scores = scores_of(t, first + r, first_key);
    vf total = zero();
    for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) {
      const vf score = scores.at(s.weights + r * kKeys, j);
      total = fma(map.soft(score), map.passed(score, load(s.slopes + r * kKeys + j)), total);
    }
    s.delta[first + r] += sum(total);
  }
}

// The products of every block of keys with every tile of queries that may see some of it: body(first key, keys, first
// query, rows).
template <class Body>
void each_tile(const AttentionTask& t, const float* d_o, int64_t o_stride, const BackwardScratch& s, const Body& body) {
  for (int64_t j = 0; j < t.keys; j += kKeys) {
    const int64_t keys = smaller(kKeys, t.keys - j);
    const int64_t begin = t.causal ? larger(0, j - t.offset) : 0;
    const int64_t end = t.window > 0 ? smaller(t.queries, j + keys - 1 - t.offset + t.window) : t.queries;
    if (begin >= end) continue;
    pack_cached({t.k, t.k_stride, t.format, j}, keys, t.key_dim, s.keys, kKeys);
    pack_cached({t.v, t.v_stride, t.format, j}, keys, t.value_dim, s.values, kKeys);
    for (int64_t i = begin; i < end; i += kRows) {
      const int64_t rows = smaller(kRows, end - i);
      multiply({t.q + i * t.q_stride, t.q_stride, 1, s.keys, kKeys, s.weights, kKeys, rows, kKeys, t.key_dim, false});
      multiply({d_o + i * o_stride, o_stride, 1, s.values, kKeys, s.slopes, kKeys, rows, kKeys, t.value_dim, false});
      body(j, keys, i, rows);
    }
  }
}

void backward(const AttentionTask& t, const float* o, const float* d_o, int64_t o_stride, const float* stat, float* dq,
              float* dk, float* dv, int64_t dq_stride, int64_t dk_stride, int64_t dv_stride, float* scratch) {
  const BackwardScratch s(t, scratch);
  const bool clipped = t.map == ScoreMap::clipped;
  for (int64_t i = 0; i < t.queries; ++i)
    s.delta[i] = clipped ? 0 : dot(o + i * o_stride, d_o + i * o_stride, t.value_dim);
  if (clipped)
    each_tile(t, d_o, o_stride, s,
              [&](int64_t j, int64_t, int64_t i, int64_t rows) { add_clipped_delta(t, i, rows, j, stat, s); });
  each_tile(t, d_o, o_stride, s, [&](int64_t j, int64_t keys, int64_t i, int64_t rows) {
    weigh_slopes(t, i, rows, j, stat, s);
    const float *q = t.q + i * t.q_stride, *k = static_cast<const float*>(t.k) + j * t.k_stride,
                *d = d_o + i * o_stride;
    multiply({s.weights, 1, kKeys, d, o_stride, dv + j * dv_stride, dv_stride, keys, t.value_dim, rows, true});
    multiply({s.slopes, 1, kKeys, q, t.q_stride, dk + j * dk_stride, dk_stride, keys, t.key_dim, rows, true});
    multiply({s.slopes, kKeys, 1, k, t.k_stride, dq + i * dq_stride, dq_stride, rows, t.key_dim, keys, true});
  });
}

int64_t scratch_floats(const AttentionTask& t) {
  const int64_t blocks = (t.key_dim + t.value_dim) * kKeys + kRows * kKeys;
  return blocks + larger(kRows * (t.key_dim + t.value_dim + 4), kRows * kKeys + t.queries);
}

}  // namespace

const Attention attention_table = {.scratch_floats = scratch_floats,
                                   .forward = forward,
                                   .spans = spans,
                                   .forward_span = forward_span,
                                   .fold_spans = fold_spans,
                                   .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
