#pragma once
#include <algorithm>

#include "sequence/batch.h"

// Tokens in a plane: a sequence is a grid, row after row of `columns` tokens. A line is a grid of one column.
namespace sennit {

// What a token sees of its grid: so many rows up and down, so many columns to either side.
struct Neighbours {
  int64_t columns = 1, rows_away = 1, columns_away = 0;

  int64_t taps() const { return (2 * rows_away + 1) * (2 * columns_away + 1); }
  // How far back in the sequence the first of them is.
  int64_t before() const { return rows_away * columns + std::min(columns_away, columns - 1); }
};
inline Neighbours line_neighbours(int64_t away) {
  return {1, away, 0};
}
inline Neighbours grid_neighbours(int64_t columns, int64_t away) {
  return {columns, away, away};
}

// Calls body(place in the sequence, tap) for those of `token` that are in a grid of `length` tokens, and no later than
// it where attention is causal. Taps count row after row.
template <class Body>
void each_neighbour(const Neighbours& n, int64_t token, int64_t length, bool causal, Body&& body) {
  const int64_t column = token % n.columns, wide = 2 * n.columns_away + 1;
  for (int64_t tap = 0; tap < n.taps(); ++tap) {
    const int64_t down = tap / wide - n.rows_away, right = tap % wide - n.columns_away,
                  place = token + down * n.columns + right;
    if (column + right < 0 || column + right >= n.columns) continue;
    if (place >= 0 && place < length && (!causal || place <= token)) body(place, tap);
  }
}

// Depthwise convolution: y[t, c] = sum over the neighbours of t of w[tap, c] x[neighbour, c], with weights [taps, C] of
// all sequences or [segments taps, C], each sequence's own. In a causal batch a sequence's last before() inputs are its
// state [before, C]. plane_differences() puts x[neighbour, c] - x[t, c] in the place of x[neighbour, c]: a constant
// grid gives exactly nothing.
Var plane_conv(const Var& x, const Var& weights, const Neighbours& neighbours, const Batch& batch, size_t field);
Var plane_differences(const Var& x, const Var& weights, const Neighbours& neighbours, const Batch& batch, size_t field);
int64_t plane_conv_flops(int64_t n, const Neighbours& neighbours, int64_t channels);  // over n tokens

}  // namespace sennit
