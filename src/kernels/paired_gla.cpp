#include "kernels/paired_gla.h"

#include "kernels/paired_gla_tree.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// before, after and total of a chunk whose tokens fade in all channels alike.
void fade_tokens(const GlaTask& t, const Span& x, const float* e, const PairedChunk& c) {
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
  for (int64_t l = 0; l < whole_vectors(t.key_dim); ++l) c.total[l] = after;
}

// Multiplies a, the products of queries and keys, by the scale and by how far their pairs have faded; zeros where a key
// comes later. Row by row, how far each key has faded until the row's token reads is in the lanes.
template <bool Before>
void weigh_pairs(int64_t n, float scale, const float* e, float* a, Asked& asked) {
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

// exp(g) of a chunk's tokens, 1 without gates.
void load_decays(const GlaTask& t, const Span& x, float* e) {
  for (int64_t i = 0; i < kTokens; ++i) e[i] = x.g && i < x.n ? x.g[i * t.g_stride] : 0;
  for (int64_t i = 0; i < kTokens; i += kLanes) store(e + i, decay_of(load(e + i)));
}

// Decay::none and Decay::scalar: fills the chunk from the products of its queries and keys.
template <bool Before>
void token_decays(const GlaTask& t, const PanelKernels& panels, const Span& x, const PairedChunk& c, Asked& asked) {
  const int64_t K = t.key_dim, n = x.n;
  float e[kTokens];
  load_decays(t, x, e);
  fade_tokens(t, x, e, c);
  pack_rows(panels, x.q, t.q_stride, false, n, K, c.queries);
  pack_columns(panels, x.k, t.k_stride, false, n, n, K, c.other);
  multiply_packed(panels, c.queries, c.other, c.a, kTokens, n, n, K, false);
  weigh_pairs<Before>(n, t.scale, e, c.a, asked);
  pack_rows(panels, x.k, t.k_stride, true, K, n, c.keys);
}

int64_t state_rows(int64_t key_dim) {
  return 2 * depth_of(key_dim);
}

struct Forward {
  PairedChunk chunk;
  Tree tree;
  float *read, *mixed;  // [kTokens, V] Q S and A V
  float* s;             // [K, V] filled up to whole panels by zeros
  Forward(const GlaTask& t, Scratch& pieces) : chunk(t, pieces), tree(t, pieces) {
    for (float** p : {&read, &mixed}) *p = pieces.take(kTokens * whole_vectors(t.value_dim));
    s = pieces.take(state_rows(t.key_dim) * whole_panels(t.value_dim));
  }
};

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

void prepare(const GlaTask& t, const PanelKernels& panels, const Span& x, const PairedChunk& c, const Tree& tree,
             Asked& asked) {
  if (t.decay == Decay::vector)
    t.reads_before ? channel_decays<true>(t, panels, x, c, tree, asked)
                   : channel_decays<false>(t, panels, x, c, tree, asked);
  else
    t.reads_before ? token_decays<true>(t, panels, x, c, asked) : token_decays<false>(t, panels, x, c, asked);
  pack_values(t, x, c, asked);
}

// Packs S and lets it fade.
void pack_state(const GlaTask& t, const PairedChunk& c, float* s, Asked& asked) {
  const int64_t depth = depth_of(t.key_dim), width = whole_panels(t.value_dim);
  float* packed = c.other;
  for (int64_t u = 0; u < depth; ++u, s += 2 * width) {
    asked.some();
    const vf fade = set(c.total[2 * u]), fade_odd = set(c.total[2 * u + 1]);
    for (int64_t l = 0; l < width; l += kLanes) {
      const vf even = load(s + l), odd = load(s + width + l);
      store(unit_at(packed, depth, u, l), pair(even, odd));
      store(s + l, even * fade), store(s + width + l, odd * fade_odd);
    }
  }
}

// y = before Q S + A V, of their products.
void put_rows(const GlaTask& t, const Forward& f, int64_t n, float* y, int64_t y_stride, Asked& asked) {
  const int64_t V = t.value_dim, stride = whole_vectors(V);
  for (int64_t i = 0; i < n; ++i, y += y_stride) {
    asked.some();
    const vf before = set(f.chunk.before[i]);
    const float *read = f.read + i * stride, *mixed = f.mixed + i * stride;
    for_lanes(V, [&](int64_t l, int64_t k) { store_n(y + l, fma(before, load(read + l), load(mixed + l)), k); });
  }
}

void forward_chunk(const GlaTask& t, const PanelKernels& panels, const Span& x, const Forward& f, float* y,
                   int64_t y_stride, Asked& asked) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n, stride = whole_vectors(V);
  const PairedChunk& c = f.chunk;
  prepare(t, panels, x, c, f.tree, asked);
  pack_rows(panels, c.a, kTokens, false, n, n, c.pairs);
  pack_state(t, c, f.s, asked);
  multiply_packed(panels, c.queries, c.other, f.read, stride, n, V, K, false);
  multiply_packed(panels, c.pairs, c.values, f.mixed, stride, n, V, n, false);
  put_rows(t, f, n, y, y_stride, asked);
  multiply_packed(panels, c.keys, t.decay == Decay::vector ? c.values : c.written, f.s, whole_panels(V), K, V, n, true);
}

void fill(float* x, int64_t n, float with) {
  for_lanes(n, [&](int64_t i, int64_t k) { store_n(x + i, set(with), k); });
}
void copy_rows(const float* from, int64_t from_stride, int64_t rows, int64_t width, float* to, int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i) copy(from + i * from_stride, to + i * to_stride, width);
}

void forward(const GlaTask& t, const PanelKernels& panels, const float* s0, float* s_end, float* y, int64_t y_stride,
             float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim, width = whole_panels(V);
  Scratch pieces(scratch);
  const Forward f(t, pieces);
  fill(f.s, state_rows(K) * width, 0), fill(f.chunk.a, kTokens * kTokens, 0);
  for (float* x : {f.chunk.before, f.chunk.after}) fill(x, kTokens, 1);
  fill(f.chunk.total, state_rows(K), 1);
  if (s0) copy_rows(s0, V, K, V, f.s, width);
  for (int64_t first = 0; first < t.length; first += kTokens) {
    Asked asked(t, first + kTokens);
    forward_chunk(t, panels, Span(t, first), f, y + first * y_stride, y_stride, asked);
  }
  if (s_end) copy_rows(f.s, width, K, V, s_end, V);
}

int64_t forward_floats(const GlaTask& t) {
  Scratch pieces(nullptr);
  Forward(t, pieces);
  return pieces.needed();
}

}  // namespace

const PairedGla paired_gla_table = {.forward_floats = forward_floats,
                                    .backward_floats = forward_floats,
                                    .forward = forward,
                                    .backward = nullptr};

}  // namespace sennit::kernels::SENNIT_LEVEL
