#pragma once
// Decay::vector: the tokens of a chunk up to which no channel has faded by more than 2^-40 since the chunk's start.
// Their pairs are one product of queries faded since the start and keys faded the other way, both far from what f32 and
// bf16 can hold. Gates that are mild leave nothing else; the tree (paired_gla_tree.h) has the tokens behind. Use only
// from src/kernels/paired_gla.cpp.
#include <cstdint>

#include "kernels/paired_gla_tree.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr float kFaint = 0x1p-40f;

SENNIT_INLINE bool any(vmask m) {
  return highest(select(m, set(1), zero())) > 0;
}

// The chunk's queries faded since its start to tree.q, its keys faded the other way to tree.k, and total. How many
// tokens are near hangs for each on those before it alone, as its results must.
template <bool Before>
void fade_from_start(const GlaTask& t, const Span& x, const PairedChunk& c, const Tree& tree, Asked& asked) {
  const int64_t w = tree.width, q_stride = t.q_stride, k_stride = t.k_stride, g_stride = t.g_stride, n = x.n;
  const vf scale = set(t.scale);
  for (int64_t l = 0; l < w; l += kLanes) {
    const int64_t lanes = t.key_dim - l;
    const float *q = x.q + l, *k = x.k + l, *g = x.g + l;
    float *to_q = tree.q + l, *to_k = tree.k + l;
    vf faded = set(1), back = set(1);
    for (int64_t i = 0; i < n; ++i, q += q_stride, k += k_stride, g += g_stride, to_q += w, to_k += w) {
      if (i % 4 == 0) asked.some();
      const vf power = load_some(g, lanes) * set(kPowersInE), own = faded * exp2(power);
      back = back * exp2(min(-power, set(126)));
      store(to_q, load_some(q, lanes) * scale * (Before ? faded : own));
      store(to_k, load_some(k, lanes) * back);
      faded = own;
    }
    store(c.total + l, faded);
  }
}

int64_t near_tokens(const GlaTask& t, const Span& x, const float* total) {
  int64_t near = x.n;
  for (int64_t l = 0; l < t.key_dim; l += kLanes) {
    if (!any(less(load(total + l), set(kFaint)))) continue;
    vf faded = set(1);
    for (int64_t i = 0; i < near; ++i) {
      faded = faded * decay_of(load_some(x.g + i * t.g_stride + l, t.key_dim - l));
      if (any(less(faded, set(kFaint)))) near = i;
    }
  }
  return near;
}

// The first rows of a: their products up to a token's own, or that before it, and zeros.
void place_near(const float* products, int64_t near, int64_t back, float* a) {
  float places[kTokens];
  for (int64_t j = 0; j < kTokens; ++j) places[j] = static_cast<float>(j);
  for (int64_t i = 0; i < near; ++i) {
    const vf end = set(static_cast<float>(i + 1 - back));
    for (int64_t j = 0; j < kTokens; j += kLanes) {
      const int64_t at = i * kTokens + j;
      store(a + at, select(less(load(places + j), end), load(products + at), zero()));
    }
  }
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
