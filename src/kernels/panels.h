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

// Transposes a square of kLanes rows by kLanes units, from unit u; row(r, k) is floats k, ... of row r.
template <bool kPaired, class Row>
SENNIT_INLINE void turn_square(vf (&square)[kLanes], int64_t u, const Row& row) {
  constexpr int kHalf = kPaired ? kLanes / 2 : 0;
  if constexpr (kHalf > 0) {  // rounding two rows into one vector is the first step of their transposition
#pragma GCC unroll 8
    for (int r = 0; r < kHalf; ++r) {
      square[r] = pair_up(row(r, 2 * u), row(r + kHalf, 2 * u));
      square[r + kHalf] = pair_up(row(r, 2 * u + kLanes), row(r + kHalf, 2 * u + kLanes));
    }
    transpose<kHalf / 2>(square);
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) square[r] = kPaired ? pair_up(row(r, 2 * u), row(r, 2 * u + kLanes)) : row(r, u);
    transpose(square);
  }
}

// panel[depth][panel_width] from floats(i, k), floats k, ..., k + kLanes - 1 of row i; zeros beyond `width` rows. From
// unit `from`.
template <bool kPaired, class Floats>
SENNIT_INLINE void pack_squares(int64_t width, float* panel, int64_t panel_width, int64_t depth, const Floats& floats,
                                int64_t from = 0) {
  for (int64_t u = from; u < depth; u += kLanes)
    for (int64_t i = 0; i < panel_width; i += kLanes) {
      vf square[kLanes];
      turn_square<kPaired>(
          square, u, [&](int64_t r, int64_t k) __attribute__((always_inline)) {
            return i + r < width ? floats(i + r, k) : zero();
          });
      put_square(square, panel, panel_width, depth, u, i);
    }
}

inline constexpr int64_t kMostPanelRows = 32, kRowsAhead = 32;

template <bool kPaired>
inline constexpr int64_t kUnitFloats = kPaired ? 2 : 1;

// Whether a vector may be stored for each unit of a panel but the last: what it leaves beyond a unit's end the next ones
// cover.
SENNIT_INLINE bool covered(int64_t panel_width) {
  return panel_width <= kLanes && kLanes <= 2 * panel_width;
}

// The units that whole vectors of floats make, of a panel that has all its rows.
template <bool kPaired>
SENNIT_INLINE int64_t pack_whole_squares(const float* x, int64_t stride, int64_t width, int64_t k, float* panel) {
  if (width > kMostPanelRows || (width % kLanes != 0 && !covered(width))) return 0;
  const float* rows[kMostPanelRows];
  for (int64_t i = 0; i < kMostPanelRows; ++i) rows[i] = x + smaller(i, width - 1) * stride;
  int64_t u = 0;
  for (; (u + kLanes) * kUnitFloats<kPaired> <= k; u += kLanes)
    for (int64_t i = 0; i < width; i += kLanes) {
      vf square[kLanes];
      turn_square<kPaired>(
          square, u, [&](int64_t r, int64_t at) __attribute__((always_inline)) { return load(rows[i + r] + at); });
      float* to = panel + u * width + i;
#pragma GCC unroll 16
      for (int r = 0; r + 1 < kLanes; ++r) store(to + r * width, square[r]);
      store_some(to + (kLanes - 1) * width, square[kLanes - 1], width - i);
    }
  return u;
}

// panel[depth][panel_width] units from element (i, k) = x[i * stride + k], or x[k * stride + i] when k_major; zeros
// beyond width and k.
template <bool kPaired>
SENNIT_INLINE void pack_units(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel,
                              int64_t panel_width, int64_t depth) {
  if (k_major) {
    int64_t u = 0;
    if (covered(panel_width))
      for (; u + 1 < depth; ++u) {
        constexpr int64_t kRows = kUnitFloats<kPaired>;
        for (int r = 0; r < kRows; ++r) __builtin_prefetch(x + (kRows * u + r + kRowsAhead) * stride, 0, 2);
        store(panel + u * panel_width, column_units<kPaired>(x, stride, u, k, width));
      }
    for (; u < depth; ++u)
      for (int64_t i = 0; i < panel_width; i += kLanes)
        store_some(panel + u * panel_width + i, column_units<kPaired>(x + i, stride, u, k, width - i), panel_width - i);
    return;
  }
  const int64_t whole = width == panel_width ? pack_whole_squares<kPaired>(x, stride, width, k, panel) : 0;
  pack_squares<kPaired>(
      width, panel, panel_width, depth,
      [=](int64_t i, int64_t from)
          __attribute__((always_inline)) { return load_some(x + i * stride + from, k - from); },
      whole);
}

SENNIT_INLINE int64_t paired_depth(int64_t k, int64_t multiple) {
  return (k + multiple - 1) / multiple * multiple / 2;
}

}  // namespace sennit::kernels::SENNIT_LEVEL
