#pragma once
// A chunk of gated linear attention as factors of products of bf16 pairs. Use only from src/kernels/paired_gla.cpp.
#include "kernels/chunk.h"
#include "kernels/gla.h"
#include "kernels/paired_factors.h"
#include "kernels/paired_gla.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kTokens = kPairedTokens;

// exp(g) for g <= 0, at less cost than exp_decay(): what g loses as a power of two is less than bf16 can tell.
SENNIT_INLINE vf decay_of(vf g) {
  return exp2(g * set(kPowersInE));
}
SENNIT_INLINE int64_t whole_vectors(int64_t n) {
  return (n + 15) / 16 * 16;
}

// Rows of a state while it is worked on: filled up to whole panels by zeros.
SENNIT_INLINE int64_t state_rows(int64_t key_dim) {
  return 2 * depth_of(key_dim);
}

// Up to kTokens tokens of a task.
struct Span {
  const float *q, *k, *v, *g;
  int64_t n;
  Span(const GlaTask& t, int64_t first)
      : q(t.q + first * t.q_stride),
        k(t.k + first * t.k_stride),
        v(t.v + first * t.v_stride),
        g(t.g ? t.g + first * t.g_stride : nullptr),
        n(smaller(kTokens, t.length - first)) {}
};

// The rows of the chunk to come, asked for a token at a time between pieces of this one's work: the rows of one head
// lie so far apart that the processor does not foresee them, and all at once they would be waited for.
class Asked {
 public:
  Asked() = default;
  // For tokens from `first`, if there are any.
  Asked(const GlaTask& t, int64_t first) : first_(first) {
    if (first < 0 || first >= t.length) return;
    tokens_ = smaller(kTokens, t.length - first);
    add(t.q, t.q_stride, t.key_dim), add(t.k, t.k_stride, t.key_dim), add(t.v, t.v_stride, t.value_dim);
    if (t.decay == Decay::vector) add(t.g, t.g_stride, t.key_dim);
  }
  // Rows of the whole sequence.
  void add(const float* rows, int64_t stride, int64_t dim) {
    if (tokens_ > 0) parts_[count_++] = {rows + first_ * stride, stride, dim};
  }
  // After a piece of work, of which a chunk has at least kEvery for each of its tokens.
  SENNIT_INLINE void some() {
    if (++pieces_ % kEvery == 0) token();
  }
  void some(int64_t tokens) {
    for (int64_t i = 0; i < tokens; ++i) token();
  }

 private:
  static constexpr int64_t kEvery = 2, kLine = 16;  // floats
  struct Part {
    const float* row;
    int64_t stride, dim;
  };
  [[gnu::noinline]] void token() {
    if (tokens_-- <= 0) return;
    for (int64_t p = 0; p < count_; ++p) {
      const float* row = parts_[p].row;
      for (int64_t i = 0; i < parts_[p].dim; i += kLine) __builtin_prefetch(row + i, 0, 2);
      parts_[p].row = row + parts_[p].stride;
    }
  }
  Part parts_[9];
  int64_t first_ = 0, count_ = 0, tokens_ = 0, pieces_ = 0;
};

// A row's lanes from l, zeros where there are none.
struct Row {
  const float* p;
  int64_t lanes;  // none where there is no such row
  SENNIT_INLINE vf operator[](int64_t l) const {
    return l + kLanes <= lanes ? load(p + l) : load_some(p + l, lanes - l);
  }
};

// y = before Q S + A V and S <- total S + K^T W. What a token reads of the state, and what it leaves in it, fades by
// the channels of its key with Decay::vector, where these are scaled and W is V, else by the token, where products and
// values are.
struct PairedChunk {
  float* a;       // [kTokens, kTokens] scale sum_k q_ik k_jk exp(g_{j+1} + ... + g_r) for j <= r, else 0, where token
                  // i reads after token r: itself, or that before it
  float* decays;  // [kTokens] exp(g) but with Decay::vector
  float* before;  // [kTokens] scale exp(g_1 + ... + g_r), or 1
  float* after;   // [kTokens] exp(g_{j+1} + ... + g_n)
  float* total;   // [K] exp(g_1 + ... + g_n)
  // packed: left, right
  float *queries, *pairs, *keys;
  float *values, *written, *other;
  PairedChunk(const GlaTask& t, Scratch& pieces) {
    const int64_t K = t.key_dim, V = t.value_dim;
    a = pieces.take(kTokens * kTokens);
    for (float** p : {&decays, &before, &after}) *p = pieces.take(kTokens);
    total = pieces.take(state_rows(K));
    queries = pieces.take(panel_floats(K, kTokens)), pairs = pieces.take(panel_floats(kTokens, kTokens));
    keys = pieces.take(panel_floats(kTokens, K));
    values = pieces.take(panel_floats(kTokens, V)), written = pieces.take(panel_floats(kTokens, V));
    other = pieces.take(panel_floats(K, V > kTokens ? V : kTokens));
  }
  // What stays as it is where it is not written.
  void clear(int64_t key_dim) const {
    fill(a, kTokens * kTokens, 0), fill(total, state_rows(key_dim), 1);
    for (float* x : {before, after}) fill(x, kTokens, 1);
  }
};

// A chunk whose tokens fade in all channels alike, by exp(g), or without gates by nothing: its decays, before, after
// and total.
void fade_tokens(const GlaTask& t, const Span& x, const PairedChunk& c) {
  float* e = c.decays;
  for (int64_t i = 0; i < kTokens; ++i) e[i] = x.g && i < x.n ? x.g[i * t.g_stride] : 0;
  for (int64_t i = 0; i < kTokens; i += kLanes) store(e + i, decay_of(load(e + i)));
  float before = t.scale, after = 1;
  for (int64_t i = 0; i < x.n; ++i) {
    const float own = before * e[i];
    c.before[i] = t.reads_before ? before : own;
    before = own;
  }
  for (int64_t j = x.n - 1; j >= 0; --j) {
    c.after[j] = after;
    after *= e[j];
  }
  fill(c.total, whole_vectors(t.key_dim), after);
}

// Multiplies a [n, kTokens] by the scale and by how far pairs of tokens have faded; zeros where a key comes later. Row
// by row, how far each key has faded until the row's token reads is in the lanes.
template <bool Before>
void weigh_pairs(float scale, const float* e, int64_t n, float* a, Asked& asked) {
  constexpr int kVectors = kTokens / kLanes;
  vf faded[kVectors], place[kVectors];
  float places[kTokens];
  for (int64_t j = 0; j < kTokens; ++j) places[j] = static_cast<float>(j);
  for (int v = 0; v < kVectors; ++v) faded[v] = set(scale), place[v] = load(places + v * kLanes);
  for (int64_t i = 0; i < n; ++i) {
    asked.some();
    const vf own = set(static_cast<float>(i)), end = set(static_cast<float>(Before ? i : i + 1)), decay = set(e[i]);
    float* row = a + i * kTokens;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const vf here = select(less(place[v], own), faded[v] * decay, set(scale));
      float* to = row + v * kLanes;
      store(to, select(less(place[v], end), load(to) * (Before ? faded[v] : here), zero()));
      faded[v] = here;
    }
  }
}
void weigh_pairs(const GlaTask& t, const float* e, int64_t n, float* a, Asked& asked) {
  t.reads_before ? weigh_pairs<true>(t.scale, e, n, a, asked) : weigh_pairs<false>(t.scale, e, n, a, asked);
}

// A chunk's values as they are multiplied by pairs and, where the state takes them faded, by keys.
void pack_values(const GlaTask& t, const Span& x, const PairedChunk& c, Asked& asked) {
  const int64_t depth = depth_of(x.n), width = whole_panels(t.value_dim);
  float *values = c.values, *written = t.decay == Decay::vector ? nullptr : c.written;
  for (int64_t u = 0; u < depth; ++u) {
    const int64_t j = 2 * u;
    asked.some();
    const Row first{x.v + j * t.v_stride, j < x.n ? t.value_dim : 0},
        second{x.v + (j + 1) * t.v_stride, j + 1 < x.n ? t.value_dim : 0};
    const vf after = set(c.after[j]), after_second = set(c.after[j + 1]);
    for (int64_t l = 0; l < width; l += kLanes) {
      const vf even = first[l], odd = second[l];
      store(unit_at(values, depth, u, l), pair(even, odd));
      if (written) store(unit_at(written, depth, u, l), pair(even * after, odd * after_second));
    }
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
