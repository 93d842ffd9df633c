#include "kernels/paired_gla.h"

#include "kernels/paired_gla_gradients.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

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

// The products of a chunk's pairs of tokens, and its queries and keys packed for those with the state.
void pair_channels(const GlaTask& t, const PanelKernels& panels, const Span& x, const PairedChunk& c, const Tree& tree,
                   Asked& asked) {
  const int64_t K = t.key_dim, w = tree.width, n = x.n;
  t.reads_before ? fade_from_start<true>(t, x, c, tree, asked) : fade_from_start<false>(t, x, c, tree, asked);
  const int64_t near = near_tokens(t, x, c.total);
  pack_rows(panels, tree.q, w, false, n, K, c.queries);
  pack_columns(panels, tree.k, w, false, near, near, K, c.other);
  multiply_packed(panels, c.queries, c.other, tree.near, kTokens, n, near, K, false);
  if (near == n)
    for (int64_t j = 0; j < n; j += kLeaf) scale_leaf(tree.k + j * w, c.total, w, tree.k + j * w);
  else
    fade_channels(t, x, c, tree, asked, [&](int64_t size) { meet_halves(t, panels, c, tree, size); });
  place_near(tree.near, near, t.reads_before ? 1 : 0, c.a);
  pack_rows(panels, tree.k, w, true, K, n, c.keys);
}
void pair_tokens(const GlaTask& t, const PanelKernels& panels, const Span& x, const PairedChunk& c, Asked& asked) {
  const int64_t K = t.key_dim, n = x.n;
  fade_tokens(t, x, c);
  pack_rows(panels, x.q, t.q_stride, false, n, K, c.queries);
  pack_columns(panels, x.k, t.k_stride, false, n, n, K, c.other);
  multiply_packed(panels, c.queries, c.other, c.a, kTokens, n, n, K, false);
  weigh_pairs(t, c.decays, n, c.a, asked);
  pack_rows(panels, x.k, t.k_stride, true, K, n, c.keys);
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

// y = before Q S + A V; with Decay::vector before is 1, and f.mixed the sum.
void put_rows(const GlaTask& t, const Forward& f, int64_t n, float* y, int64_t y_stride, Asked& asked) {
  const int64_t V = t.value_dim, stride = whole_vectors(V);
  const float *read = f.read, *mixed = f.mixed;
  const bool added = t.decay == Decay::vector;
  for (int64_t i = 0; i < n; ++i, y += y_stride, read += stride, mixed += stride) {
    asked.some();
    const vf before = set(f.chunk.before[i]);
    for_lanes(V, [&](int64_t l, int64_t k) {
      const vf sum = load(mixed + l);
      store_n(y + l, added ? sum : fma(before, load(read + l), sum), k);
    });
  }
}

void forward_chunk(const GlaTask& t, const PanelKernels& panels, const Span& x, const Forward& f, float* y,
                   int64_t y_stride, Asked& asked) {
  const int64_t K = t.key_dim, V = t.value_dim, n = x.n, stride = whole_vectors(V);
  const PairedChunk& c = f.chunk;
  if (t.decay == Decay::vector)
    pair_channels(t, panels, x, c, f.tree, asked);
  else
    pair_tokens(t, panels, x, c, asked);
  pack_values(t, x, c, asked);
  pack_rows(panels, c.a, kTokens, false, n, n, c.pairs);
  pack_state(t, c, f.s, asked);
  const bool add = t.decay == Decay::vector;
  multiply_packed(panels, c.pairs, c.values, f.mixed, stride, n, V, n, false);
  multiply_packed(panels, c.queries, c.other, add ? f.mixed : f.read, stride, n, V, K, add);
  put_rows(t, f, n, y, y_stride, asked);
  multiply_packed(panels, c.keys, t.decay == Decay::vector ? c.values : c.written, f.s, whole_panels(V), K, V, n, true);
}

void forward(const GlaTask& t, const PanelKernels& panels, const float* s0, float* s_end, float* y, int64_t y_stride,
             float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim, width = whole_panels(V);
  Scratch pieces(scratch);
  const Forward f(t, pieces);
  fill(f.s, state_rows(K) * width, 0), f.chunk.clear(K);
  if (s0) copy_state(s0, V, K, V, f.s, width);
  for (int64_t first = 0; first < t.length; first += kTokens) {
    Asked asked(t, first + kTokens);
    asked.add(y, y_stride, V);
    forward_chunk(t, panels, Span(t, first), f, y + first * y_stride, y_stride, asked);
  }
  if (s_end) copy_state(f.s, width, K, V, s_end, V);
  panels.done();
}

int64_t forward_floats(const GlaTask& t) {
  Scratch pieces(nullptr);
  Forward(t, pieces);
  return pieces.needed();
}

void backward(const GlaTask& t, const PanelKernels& panels, const float* s0, const float* dy, int64_t dy_stride,
              const float* ds_end, const Gradients& to, float* ds0, float* scratch) {
  const int64_t K = t.key_dim, V = t.value_dim;
  Scratch pieces(scratch);
  const Backward b(t, pieces);
  const int64_t size = b.state_floats(t), last = (t.length - 1) / kTokens * kTokens;
  Products products{panels, b.left, b.right, {}};
  fill(b.states, size, 0), fill(b.ds, size, 0), b.chunk.clear(K);
  for (float* rows : {b.q, b.k, b.dq, b.dk}) fill(rows, kTokens * b.keys, 0);
  for (float* rows : {b.v, b.dy, b.dv}) fill(rows, kTokens * b.values, 0);
  if (s0) copy_state(s0, V, K, V, b.states, b.width);
  if (ds_end) copy_state(ds_end, V, K, V, b.ds, b.width);
  for (int64_t first = 0; first < last; first += kTokens) {
    float* s = b.states + first / kTokens * size;
    products.asked = Asked(t, first + kTokens);
    advance_state(t, Span(t, first), b, products, s, s + size);
  }
  for (int64_t first = last; first >= 0 && t.length > 0; first -= kTokens) {
    products.asked = Asked(t, first - kTokens);
    ask_for(t, to, products.asked);
    products.asked.add(dy, dy_stride, V);
    backward_chunk(t, Span(t, first), dy + first * dy_stride, dy_stride, b, products, b.states + first / kTokens * size,
                   at_token(t, to, first));
  }
  if (ds0) add_rows({b.ds, b.width}, K, V, {ds0}, V);
  panels.done();
}
int64_t backward_floats(const GlaTask& t) {
  Scratch pieces(nullptr);
  Backward(t, pieces);
  return pieces.needed();
}

}  // namespace

const PairedGla paired_gla_table = {
    .forward_floats = forward_floats, .backward_floats = backward_floats, .forward = forward, .backward = backward};

}  // namespace sennit::kernels::SENNIT_LEVEL
