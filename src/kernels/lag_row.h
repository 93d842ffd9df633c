#pragma once
// What the kernels of weights that hang on distances share. For kernels only (see simd.h).
#include "kernels/lag_attention.h"
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The keys of query i: [0, end), and where a distance stands in the tables.
struct LagRow {
  const LagAttentionTask& t;
  int64_t i;
  int64_t end() const {
    const int64_t last = i + t.offset + 1;
    return !t.causal || last > t.keys ? t.keys : last > 0 ? last : 0;
  }
  int64_t place(int64_t j) const {
    const int64_t l = j - i - t.offset;
    return (l < -t.reach ? 0 : l > t.reach ? 2 * t.reach : l + t.reach) * t.table_stride;
  }
  const float* q() const { return t.q + i * t.q_stride; }
  const float* k(int64_t j) const { return t.k + j * t.k_stride; }
  const float* v(int64_t j) const { return t.v + j * t.v_stride; }
};

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
