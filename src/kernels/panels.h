#pragma once
// Packing of panels, shared by the levelled and the AMX products; for kernels only (see simd.h).
#include "kernels/pairs.h"
#include "kernels/transpose.h"

namespace sennit::kernels::SENNIT_LEVEL {

SENNIT_INLINE int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
// The first n lanes, zeros in the others; n may be anything.
SENNIT_INLINE vf load_some(const float* p, int64_t n) {
  return n >= kLanes ? load(p) : n > 0 ? load_part(p, n) : zero();
}
SENNIT_INLINE void store_some(float* p, vf a, int64_t n) {
  if (n >= kLanes)
    store(p, a);
  else if (n > 0)
    store_part(p, a, n);
}

// Units u, ..., u + kLanes - 1 of a row of k floats: the floats themselves, or pairs of them.
template <bool kPaired>
SENNIT_INLINE vf row_units(const float* row, int64_t u, int64_t k) {
  if constexpr (!kPaired)
    return load_some(row + u, k - u);
  else
    return pair_up(load_some(row + 2 * u, k - 2 * u), load_some(row + 2 * u + kLanes, k - 2 * u - kLanes));
}

// Unit u of n columns that start at x, where the row of k lies at x + k stride.
template <bool kPaired>
SENNIT_INLINE vf column_units(const float* x, int64_t stride, int64_t u, int64_t k, int64_t n) {
  if constexpr (!kPaired)
    return load_some(x + u * stride, n);
  else
    return pair(load_some(x + 2 * u * stride, 2 * u < k ? n : 0),
                load_some(x + (2 * u + 1) * stride, 2 * u + 1 < k ? n : 0));
}

// Stores the transpose of a square that is units u, ... of rows i, ... of a panel[depth][panel_width].
SENNIT_INLINE void put_square(const vf (&square)[kLanes], float* panel, int64_t panel_width, int64_t depth, int64_t u,
                              int64_t i) {
  const int64_t units = smaller(depth - u, kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r)
    if (r < units) store_some(panel + (u + r) * panel_width + i, square[r], panel_width - i);
}

// panel[depth][panel_width] from floats(i, k), floats k, ..., k + kLanes - 1 of row i; zeros beyond `width` rows.
template <bool kPaired, class Floats>
SENNIT_INLINE void pack_squares(int64_t width, float* panel, int64_t panel_width, int64_t depth, const Floats& floats) {
  constexpr int kHalf = kPaired ? kLanes / 2 : 0;
  const auto row = [&](int64_t i, int64_t k) __attribute__((always_inline)) {
    return i < width ? floats(i, k) : zero();
  };
  for (int64_t u = 0; u < depth; u += kLanes)
    for (int64_t i = 0; i < panel_width; i += kLanes) {
      vf square[kLanes];
      if constexpr (kHalf > 0) {  // rounding two rows into one vector is the first step of their transposition
#pragma GCC unroll 8
        for (int r = 0; r < kHalf; ++r) {
          square[r] = pair_up(row(i + r, 2 * u), row(i + r + kHalf, 2 * u));
          square[r + kHalf] = pair_up(row(i + r, 2 * u + kLanes), row(i + r + kHalf, 2 * u + kLanes));
        }
        transpose<kHalf / 2>(square);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r)
          square[r] = kPaired ? pair_up(row(i + r, 2 * u), row(i + r, 2 * u + kLanes)) : row(i + r, u);
        transpose(square);
      }
      put_square(square, panel, panel_width, depth, u, i);
    }
}

// panel[depth][panel_width] units from element (i, k) = x[i * stride + k], or x[k * stride + i] when k_major; zeros
// beyond width and k.
template <bool kPaired>
SENNIT_INLINE void pack_units(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel,
                              int64_t panel_width, int64_t depth) {
  if (k_major) {
    for (int64_t u = 0; u < depth; ++u)
      for (int64_t i = 0; i < panel_width; i += kLanes)
        store_some(panel + u * panel_width + i, column_units<kPaired>(x + i, stride, u, k, width - i), panel_width - i);
    return;
  }
  pack_squares<kPaired>(
      width, panel, panel_width, depth, [=](int64_t i, int64_t from) __attribute__((always_inline)) {
        return load_some(x + i * stride + from, k - from);
      });
}

SENNIT_INLINE int64_t paired_depth(int64_t k, int64_t multiple) {
  return (k + multiple - 1) / multiple * multiple / 2;
}

}  // namespace sennit::kernels::SENNIT_LEVEL
