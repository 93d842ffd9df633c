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

// What the backward pass keeps of queries and keys: these as they fade the other way, rounded to bf16, and what both
// were multiplied by.
struct FadedBack {
  float *k, *since, *back;
};

// The chunk's queries faded since its start to tree.q, its keys faded the other way to tree.k or, with tree.q rounded
// as well, to what is kept; and total.
template <bool Before, class Kept = std::nullptr_t>
void fade_from_start(const GlaTask& t, const Span& x, const PairedChunk& c, const Tree& tree, Asked& asked,
                     const Kept& kept = nullptr) {
  constexpr bool kKeeps = !std::is_null_pointer_v<Kept>;
  const int64_t w = tree.width, q_stride = t.q_stride, k_stride = t.k_stride, g_stride = t.g_stride;
  const vf scale = set(t.scale);
  for (int64_t l = 0; l < w; l += kLanes) {
    const int64_t lanes = t.key_dim - l;
    const float *q_row = x.q + l, *k_row = x.k + l, *g_row = x.g + l;
    vf power = zero();  // of two, by which the channels have faded
    for (int64_t i = 0; i < x.n; ++i, q_row += q_stride, k_row += k_stride, g_row += g_stride) {
      if (i % 4 == 0) asked.some();
      const int64_t at = i * w + l;
      const vf before = power;
      power = fma(load_some(g_row, lanes), set(kPowersInE), power);
      const vf since = scale * short_exp2(Before ? before : power), back = short_exp2(-power);
      const vf q = load_some(q_row, lanes) * since, k = load_some(k_row, lanes) * back;
      if constexpr (kKeeps) {
        store(tree.q + at, rounded_to_bf16(q)), store(kept->k + at, rounded_to_bf16(k));
        store(kept->since + at, since), store(kept->back + at, back);
      } else {
        store(tree.q + at, q), store(tree.k + at, k);
      }
    }
    store(c.total + l, exp2(power));
  }
}

// How many tokens are near hangs for each on those before it alone, as its results must.
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

// Whether every gate of the chunk lets 2^-10 pass.
bool lets_pass(const GlaTask& t, const Span& x) {
  vf least = zero();
  for (int64_t i = 0; i < x.n; ++i)
    for_lanes(t.key_dim, [&](int64_t l, int64_t k) { least = min(least, load_n(x.g + i * t.g_stride + l, k)); });
  return !any(less(least, set(-6.93f)));
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
