#pragma once
#include <bitset>

#include "ops/count.h"
#include "support/mixers.h"

// Which tokens a mixer reads, and how many.
namespace sennit {

constexpr size_t kMostTokens = 1024;
using Reads = std::vector<std::bitset<kMostTokens>>;  // [token][token read]

// Of all heads together, in a causal sequence; from the implicit matrix.
inline Reads reads_of(Mixer& mixer, int64_t n, int64_t d_model) {
  NoGrad off;
  const auto m = mixer.implicit(Var(normal_rows(n, d_model, 3)), Context{});
  SENNIT_CHECK(m && n <= static_cast<int64_t>(kMostTokens));
  Reads reads(n);
  for (int64_t h = 0; h < m->weights.shape(0); ++h)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j)
        if (m->weights.data()[(h * n + i) * n + j] != 0) reads[i].set(j);
  return reads;
}

// After one more layer of the same.
inline Reads next_layer(const Reads& so_far, const Reads& layer) {
  Reads reads(layer.size());
  for (size_t i = 0; i < layer.size(); ++i)
    for (size_t j = 0; j < layer.size(); ++j)
      if (layer[i].test(j)) reads[i] |= so_far[j];
  return reads;
}

inline bool reads_everything_before(const Reads& reads) {
  for (size_t i = 0; i < reads.size(); ++i)
    if (reads[i].count() != i + 1) return false;
  return true;
}

// Pairs of query and key that a forward pass over one fresh sequence computes, a head: by the operations that are
// counted, beside those of the mixer's maps.
inline double pairs_computed(Mixer& mixer, int64_t n, int64_t d_model, int64_t maps_flops, int64_t heads) {
  operation_count() = {};
  run_alone(mixer, normal_rows(n, d_model, 3));
  return static_cast<double>(operation_count().flops - maps_flops) /
         (4.0 * static_cast<double>(d_model / heads * heads));
}

}  // namespace sennit
