#include "kernels/sparse_attention.h"

#include "kernels/attention_tile.h"
#include "kernels/cached_rows.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

static_assert(kTileKeys == kKeys);

int64_t row_at(const RowSet& set, const int32_t* list, int64_t i) {
  return set.listed ? list[set.first + i] : set.first + i;
}
// Whether the rows follow one another, so that they can be read where they stand.
bool together(const RowSet& set, const int32_t* list) {
  return row_at(set, list, set.count - 1) - row_at(set, list, 0) == set.count - 1;
}

void copy_row(const float* from, float* to, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(to + i, load_n(from + i, m), m); });
}
void add_row(const float* from, float* to, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(to + i, load_n(to + i, m) + load_n(from + i, m), m); });
}

// Some rows of a matrix, where they stand or in a copy.
struct Rows {
  const float* data;
  int64_t stride;
};
Rows rows_of(const float* x, int64_t stride, int64_t width, const RowSet& set, const int32_t* list, float* copy) {
  if (together(set, list)) return {x + row_at(set, list, 0) * stride, stride};
  for (int64_t i = 0; i < set.count; ++i) copy_row(x + row_at(set, list, i) * stride, copy + i * width, width);
  return {copy, width};
}
// Some keys or values: widened where they are not floats.
Rows kept_rows(const SparseAttentionTask& t, const void* x, int64_t stride, int64_t width, const RowSet& set,
               float* copy) {
  if (t.format == CacheFormat::f32) return rows_of(static_cast<const float*>(x), stride, width, set, t.key_list, copy);
  for (int64_t i = 0; i < set.count; ++i)
    widen_cached({x, stride, t.format, row_at(set, t.key_list, i)}, 1, width, copy + i * width);
  return {copy, width};
}
void add_back(const float* copy, int64_t width, const RowSet& set, const int32_t* list, float* x, int64_t stride) {
  for (int64_t i = 0; i < set.count; ++i) add_row(copy + i * width, x + row_at(set, list, i) * stride, width);
}

RowSet part_of(const RowSet& set, int64_t begin, int64_t most) {
  return {set.first + begin, smaller(most, set.count - begin), set.listed};
}

// The keys of a tile as the scores want them.
struct TileKeys {
  const KeyTile& tile;
  const int32_t* list;
  int64_t first, last;  // key
  bool run;             // its keys follow one another
  float places[kKeys];

  TileKeys(const SparseAttentionTask& t, const KeyTile& of)
      : tile(of),
        list(t.key_list),
        first(row_at(of.keys, list, 0)),
        last(row_at(of.keys, list, of.keys.count - 1)),
        run(together(of.keys, list)) {
    for (int64_t j = 0; j < kKeys; ++j)
      places[j] = static_cast<float>(j < of.keys.count ? row_at(of.keys, list, j) - first : 0);
  }
  // How many of the keys stand before a place.
  int64_t before(int64_t place) const {
    if (run) return larger(0, smaller(tile.keys.count, place - first));
    if (place <= first) return 0;
    if (last < place) return tile.keys.count;
    int64_t n = 1;
    while (row_at(tile.keys, list, n) < place) ++n;
    return n;
  }
  Scores scores(const SparseAttentionTask& t, int64_t query) const {
    const int64_t place = query + t.offset;
    return {t.scale,
            t.alibi,
            kNothing,
            place - first,
            {before(place - tile.far + 1), before(place - tile.near + 1)},
            run ? nullptr : places};
  }
  // How many of the keys, from the first on, some of the queries see: those that the last one has reached.
  int64_t reached(const SparseAttentionTask& t, const RowSet& queries) const {
    return before(row_at(queries, t.query_list, queries.count - 1) + t.offset - tile.near + 1);
  }
};

struct Scratch {
  float *keys, *values;            // [key_dim, kKeys], [value_dim, kKeys]
  float *some_keys, *some_values;  // [kKeys, key_dim], [kKeys, value_dim]
  float *sum_keys, *sum_values;    // [kKeys, key_dim], [kKeys, value_dim]: gradients of keys that stand apart
  float *some_queries, *some_outs, *some_do;  // [kRows, key_dim], [kRows, value_dim] twice
  float *weights, *slopes;                    // [kRows, kKeys]
  Running *running, *earlier;                 // [end - begin]: of a span of keys, and of those before it
  float* sums;                                // [end - begin, value_dim]: of those before it
  float* delta;                               // [end - begin]

  Scratch(const SparseAttentionTask& t, float* scratch)
      : keys(scratch),
        values(keys + t.key_dim * kKeys),
        some_keys(values + t.value_dim * kKeys),
        some_values(some_keys + kKeys * t.key_dim),
        sum_keys(some_values + kKeys * t.value_dim),
        sum_values(sum_keys + kKeys * t.key_dim),
        some_queries(sum_values + kKeys * t.value_dim),
        some_outs(some_queries + kRows * t.key_dim),
        some_do(some_outs + kRows * t.value_dim),
        weights(some_do + kRows * t.value_dim),
        slopes(weights + kRows * kKeys),
        running(reinterpret_cast<Running*>(slopes + kRows * kKeys)),
        earlier(running + (t.end - t.begin)),
        sums(reinterpret_cast<float*>(earlier + (t.end - t.begin))),
        delta(sums + (t.end - t.begin) * t.value_dim) {}
};

int64_t scratch_floats(const SparseAttentionTask& t) {
  return 3 * kKeys * (t.key_dim + t.value_dim) + kRows * (t.key_dim + 2 * t.value_dim) + 2 * kRows * kKeys +
         (t.value_dim + 5) * (t.end - t.begin);
}

int64_t in_lanes(int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

float top_of(const Scores& scores, const float* products) {
  vf top = set(kNothing);
  for (int64_t j = scores.first_vector(); j < scores.range.end; j += kLanes) top = max(top, scores.at(products, j));
  return highest(top);
}

// Up to kTileRows queries against the keys of a tile, from their products; returns the pairs.
int64_t weigh_group(const SparseAttentionTask& t, const TileKeys& keys, const RowSet& queries, Rows values, float* o,
                    int64_t o_stride, float* products, const Scratch& s) {
  Range ranges[kTileRows];
  int64_t pairs = 0;
  for (int64_t r = 0; r < queries.count; ++r) {
    const int64_t query = row_at(queries, t.query_list, r), row = query - t.begin;
    const Scores scores = keys.scores(t, query);
    ranges[r] = scores.range;
    pairs += larger(0, scores.range.end - scores.range.begin);
    if (t.tops) {
      float& top = t.tops[row * t.tops_stride + keys.tile.column];
      const float here = top_of(scores, products + r * kKeys);
      if (here > top) top = here;
    }
    weigh_exponentials(scores, products + r * kKeys, s.running[row], o + r * o_stride, t.value_dim);
  }
  add_values({products, kKeys, 1, values.data, values.stride, o, o_stride, queries.count, t.value_dim, 0, true},
             ranges);
  return pairs;
}

int64_t forward_tile(const SparseAttentionTask& t, const KeyTile& tile, float* o, int64_t o_stride, const Scratch& s) {
  const TileKeys keys(t, tile);
  const Rows k = kept_rows(t, t.k, t.k_stride, t.key_dim, tile.keys, s.some_keys);
  const Rows v = kept_rows(t, t.v, t.v_stride, t.value_dim, tile.keys, s.some_values);
  pack_units<false>(k.data, k.stride, false, tile.keys.count, t.key_dim, s.keys, kKeys, t.key_dim);
  int64_t pairs = 0;
  for (int64_t at = 0; at < tile.queries.count; at += kRows) {
    const RowSet part = part_of(tile.queries, at, kRows);
    const int64_t reached = keys.reached(t, part);
    if (reached == 0) continue;
    const bool in_place = together(part, t.query_list);
    const Rows q = rows_of(t.q, t.q_stride, t.key_dim, part, t.query_list, s.some_queries);
    const Rows out = rows_of(o, o_stride, t.value_dim, part, t.query_list, s.some_outs);
    multiply({q.data, q.stride, 1, s.keys, kKeys, s.weights, kKeys, part.count, in_lanes(reached), t.key_dim, false});
    float* const sums = in_place ? o + row_at(part, t.query_list, 0) * o_stride : s.some_outs;
    for (int64_t r = 0; r < part.count; r += kTileRows)
      pairs += weigh_group(t, keys, part_of(part, r, kTileRows), v, sums + r * out.stride, out.stride,
                           s.weights + r * kKeys, s);
    if (in_place) continue;
    for (int64_t r = 0; r < part.count; ++r)
      copy_row(s.some_outs + r * t.value_dim, o + row_at(part, t.query_list, r) * o_stride, t.value_dim);
  }
  return pairs;
}

// Adds what the tiles of a span gave to what those before it did, and starts anew.
void end_span(const SparseAttentionTask& t, float* o, int64_t o_stride, const Scratch& s) {
  for (int64_t i = t.begin, r = 0; i < t.end; ++i, ++r) {
    if (empty(s.running[r])) continue;
    merge(s.earlier[r], s.sums + r * t.value_dim, s.running[r], o + i * o_stride, t.value_dim);
    start_row(s.running[r], o + i * o_stride, t.value_dim);
  }
}

int64_t forward(const SparseAttentionTask& t, float* o, int64_t o_stride, float* stat, float* scratch) {
  const Scratch s(t, scratch);
  for (int64_t i = t.begin, r = 0; i < t.end; ++i, ++r) {
    start_row(s.running[r], o + i * o_stride, t.value_dim);
    s.earlier[r] = {kNothing, 0};
  }
  int64_t pairs = 0, span = 0;
  for (int64_t i = 0; i < t.tile_count; ++i) {
    const int64_t here = row_at(t.tiles[i].keys, t.key_list, 0) / kAttentionSpan;
    if (here != span) end_span(t, o, o_stride, s);
    span = here;
    pairs += forward_tile(t, t.tiles[i], o, o_stride, s);
  }
  for (int64_t i = t.begin, r = 0; i < t.end; ++i, ++r) {
    float* const row = o + i * o_stride;
    if (!empty(s.earlier[r])) {
      merge(s.earlier[r], s.sums + r * t.value_dim, s.running[r], row, t.value_dim);
      s.running[r] = s.earlier[r];
      copy_row(s.sums + r * t.value_dim, row, t.value_dim);
    }
    const Running sum = s.running[r];
    stat[i] = log_sum(sum);
    if (sum.total != 0) scale_row(row, 1 / sum.total, t.value_dim);
  }
  return pairs;
}

// Rows of products q . k and do . v become rows of w and scale ds; zeros where the query does not see the key.
void weigh_slopes(const SparseAttentionTask& t, const TileKeys& keys, const RowSet& queries, int64_t columns,
                  const float* stat, const Scratch& s) {
  for (int64_t r = 0; r < queries.count; ++r) {
    const int64_t query = row_at(queries, t.query_list, r);
    const Scores scores = keys.scores(t, query);
    const vf early = set(static_cast<float>(scores.range.begin)), late = set(static_cast<float>(scores.range.end));
    const vf delta = set(s.delta[query - t.begin]), base = set(stat[query]);
    const bool blind = stat[query] == kNothing;
    float *weights = s.weights + r * kKeys, *slopes = s.slopes + r * kKeys;
    for (int64_t j = 0; j < columns; j += kLanes) {
      const vf key = scores.lane + set(static_cast<float>(j));
      const auto if_seen = [&](vf x) { return select(less(key, early), zero(), select(less(key, late), x, zero())); };
      const vf w = blind ? zero() : if_seen(exp(scores.at(weights, j) - base));
      store(slopes + j, if_seen(w * (load(slopes + j) - delta) * set(t.scale)));
      store(weights + j, w);
    }
  }
}

struct KeyGradients {
  float *dk, *dv;
  int64_t dk_stride, dv_stride;
};

void backward_rows(const SparseAttentionTask& t, const TileKeys& keys, const RowSet& part, Rows k, const float* d_o,
                   int64_t o_stride, const float* stat, float* dq, int64_t dq_stride, const KeyGradients& into,
                   const Scratch& s) {
  const int64_t count = keys.reached(t, part), columns = in_lanes(count);
  if (count == 0) return;
  const Rows q = rows_of(t.q, t.q_stride, t.key_dim, part, t.query_list, s.some_queries);
  const Rows d = rows_of(d_o, o_stride, t.value_dim, part, t.query_list, s.some_do);
  multiply({q.data, q.stride, 1, s.keys, kKeys, s.weights, kKeys, part.count, columns, t.key_dim, false});
  multiply({d.data, d.stride, 1, s.values, kKeys, s.slopes, kKeys, part.count, columns, t.value_dim, false});
  weigh_slopes(t, keys, part, columns, stat, s);
  multiply({s.weights, 1, kKeys, d.data, d.stride, into.dv, into.dv_stride, count, t.value_dim, part.count, true});
  multiply({s.slopes, 1, kKeys, q.data, q.stride, into.dk, into.dk_stride, count, t.key_dim, part.count, true});
  const bool in_place = together(part, t.query_list);
  float* const to = in_place ? dq + row_at(part, t.query_list, 0) * dq_stride : s.some_queries;
  multiply({s.slopes, kKeys, 1, k.data, k.stride, to, in_place ? dq_stride : t.key_dim, part.count, t.key_dim, count,
            in_place});
  if (!in_place) add_back(s.some_queries, t.key_dim, part, t.query_list, dq, dq_stride);
}

void clear(float* x, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t m) { store_n(x + i, zero(), m); });
}

void backward(const SparseAttentionTask& t, const float* o, const float* d_o, int64_t o_stride, const float* stat,
              float* dq, float* dk, float* dv, int64_t dq_stride, int64_t dk_stride, int64_t dv_stride,
              float* scratch) {
  const Scratch s(t, scratch);
  for (int64_t i = t.begin; i < t.end; ++i)
    s.delta[i - t.begin] = dot(o + i * o_stride, d_o + i * o_stride, t.value_dim);
  for (int64_t i = 0; i < t.tile_count; ++i) {
    const KeyTile& tile = t.tiles[i];
    const TileKeys keys(t, tile);
    const Rows k = kept_rows(t, t.k, t.k_stride, t.key_dim, tile.keys, s.some_keys);
    const Rows v = kept_rows(t, t.v, t.v_stride, t.value_dim, tile.keys, s.some_values);
    pack_units<false>(k.data, k.stride, false, tile.keys.count, t.key_dim, s.keys, kKeys, t.key_dim);
    pack_units<false>(v.data, v.stride, false, tile.keys.count, t.value_dim, s.values, kKeys, t.value_dim);
    KeyGradients into{dk + keys.first * dk_stride, dv + keys.first * dv_stride, dk_stride, dv_stride};
    if (!keys.run) {
      into = {s.sum_keys, s.sum_values, t.key_dim, t.value_dim};
      clear(s.sum_keys, tile.keys.count * t.key_dim);
      clear(s.sum_values, tile.keys.count * t.value_dim);
    }
    for (int64_t at = 0; at < tile.queries.count; at += kRows)
      backward_rows(t, keys, part_of(tile.queries, at, kRows), k, d_o, o_stride, stat, dq, dq_stride, into, s);
    if (keys.run) continue;
    add_back(s.sum_keys, t.key_dim, tile.keys, t.key_list, dk, dk_stride);
    add_back(s.sum_values, t.value_dim, tile.keys, t.key_list, dv, dv_stride);
  }
}

void scores(const float* q, int64_t q_stride, int64_t rows, const float* k, int64_t k_stride, int64_t keys, int64_t dim,
            float* out, int64_t out_stride, float* scratch) {
  for (int64_t j = 0; j < keys; j += kKeys) {
    const int64_t count = smaller(kKeys, keys - j);
    pack_units<false>(k + j * k_stride, k_stride, false, count, dim, scratch, kKeys, dim);
    multiply({q, q_stride, 1, scratch, kKeys, out + j, out_stride, rows, count, dim, false});
  }
}

}  // namespace

const SparseAttention sparse_attention_table = {
    .scratch_floats = scratch_floats, .forward = forward, .backward = backward, .scores = scores};

}  // namespace sennit::kernels::SENNIT_LEVEL
