#pragma once
#include "ops/products.h"
#include "sequence/rotary.h"
#include "sequence/sparse_attention.h"
#include "support/mixers.h"

// Prompts for tests of sparse prefill: queries, keys and values of one sequence, random or with heavy keys planted.
namespace sennit::planted_stripes {

struct Prompt {
  int64_t heads, kv_heads;
  Tensor q, k, v;

  int64_t dim() const { return q.row_size() / heads; }
  AttentionSegment segment() const { return {0, q.rows(), 0, 0, k.rows(), 0}; }
  SparseAttentionOptions options() const {
    return {.heads = heads, .kv_heads = kv_heads, .scale = 1 / std::sqrt(static_cast<float>(dim()))};
  }
  Tensor dense() const {
    const Var keys(k), values(v);
    const AttentionSegment whole[] = {segment()};
    return attention(Var(q), {&keys, 1}, {&values, 1}, whole,
                     {.heads = heads, .kv_heads = kv_heads, .scale = options().scale})
        .value();
  }
  Tensor sparse(TileSource source) const {
    const Var keys(k), values(v);
    const AttentionSegment whole[] = {segment()};
    return sparse_attention(Var(q), {&keys, 1}, {&values, 1}, whole, options(), std::move(source)).value();
  }
  // The part of all weight that the tiles show: [heads, N].
  Tensor kept_mass(TileSource source) const {
    const Var keys(k), values(v);
    const AttentionSegment whole[] = {segment()};
    const auto sums = [&](TileSource of) {
      return log_sums(Var(q), {&keys, 1}, {&values, 1}, whole, options(), std::move(of));
    };
    Tensor kept = sums(std::move(source));
    const Tensor all = sums([](size_t, int64_t, TileList& tiles) {
      tiles.add(Places{0, tiles.keys()}, tiles.queries(), 0);
    });
    for (int64_t i = 0; i < kept.elements(); ++i) kept.data()[i] = std::exp(kept.data()[i] - all.data()[i]);
    return kept;
  }
  // Of query i, in double, for the keys up to it.
  std::vector<double> scores(int64_t head, int64_t i) const {
    std::vector<double> all;
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < dim(); ++c)
        sum += double{q.data()[i * q.row_size() + head * dim() + c]} *
               k.data()[j * k.row_size() + head * kv_heads / heads * dim() + c];
      all.push_back(sum / std::sqrt(static_cast<double>(dim())));
    }
    return all;
  }
};

// What a mixer of softmax attention with rotary positions makes of a sequence.
inline Prompt prompt_of(Mixer& mixer, const Tensor& x, int64_t heads, int64_t kv_heads) {
  NoGrad off;
  const Segment whole[] = {{0, x.rows(), 0, nullptr}};
  const auto map = [&](const char* name) { return matmul(Var(x), parameter_of(mixer, name), {.transpose_b = true}); };
  const auto turned = [&](const char* name, int64_t count) {
    const Var y = map(name);
    return rotary(y, whole, {.heads = count, .dims = y.columns() / count}).value();
  };
  return {heads, kv_heads, turned("q.weight", heads), turned("k.weight", kv_heads), map("v.weight").value()};
}

// Scores have about the deviation `sharpness`.
inline Prompt random_prompt(int64_t n, int64_t heads, int64_t kv_heads, int64_t dim, double sharpness = 1) {
  Prompt p{heads, kv_heads, normal_rows(n, heads * dim, 1), normal_rows(n, kv_heads * dim, 2),
           normal_rows(n, kv_heads * dim, 3)};
  for (float& x : p.q.span()) x *= static_cast<float>(sharpness);
  return p;
}

// The length of the difference over that of what is wanted.
inline double relative_error(const Tensor& a, const Tensor& want) {
  double off = 0, size = 0;
  for (int64_t i = 0; i < a.elements(); ++i) {
    off += std::pow(double{a.data()[i]} - want.data()[i], 2);
    size += std::pow(double{want.data()[i]}, 2);
  }
  return std::sqrt(off / size);
}

// One head of 64 numbers. Every query likes one direction, in which the heavy keys stand; with `near` > 0 also the keys
// of its own run of that many places.
struct Planted {
  Prompt prompt;
  std::vector<int32_t> heavy;  // ascending
};
inline Planted planted_prompt(int64_t n, std::vector<int32_t> heavy, int64_t near, float weight) {
  Planted p{random_prompt(n, 1, 1, 64, 0.3), std::move(heavy)};
  for (int64_t i = 0; i < n; ++i) {
    float *q = p.prompt.q.data() + i * 64, *k = p.prompt.k.data() + i * 64;
    q[0] = 8, k[0] = 0;
    for (int64_t c = 1; near > 0 && c < 48; ++c) {  // signs of the run, which others share by chance
      const float sign = Rng(9).uniform_at(static_cast<uint64_t>(i / near * 64 + c)) < 0.5 ? -1.5f : 1.5f;
      q[c] += sign, k[c] += sign;
    }
  }
  for (const int32_t j : p.heavy) p.prompt.k.data()[j * 64] = weight;
  return p;
}
// Heavy columns in the first eighth of the prompt, and weight on the keys near.
inline Planted striped_prompt(int64_t n, int64_t stripes, int64_t near) {
  std::vector<int32_t> heavy;
  for (int64_t s = 0; s < stripes; ++s) heavy.push_back(static_cast<int32_t>(5 + s * n / (8 * stripes)));
  return planted_prompt(n, std::move(heavy), near, 16);
}

}  // namespace sennit::planted_stripes
