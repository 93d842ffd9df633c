#pragma once
#include "kernels/cell.h"
#include "sequence/batch.h"

namespace sennit {

// A recurrent cell as the loop over tokens sees it.
struct CellKind {
  struct Layer {
    int64_t first, gates;  // gates [first, first + gates) are fed by the layer's vector
  };
  kernels::CellFunctions functions;
  int64_t gates, states;
  int64_t kept;    // numbers a channel that the way back asks for of a token, besides the states before it
  int64_t layers;  // of a step: 1 or 2
  Layer layer[2];
  int64_t lowest = -1;  // the state that starts at -inf, if any; the others start at 0
  int64_t middle = 0;   // with two layers: where among what is kept the vector lies that feeds the second
  float limit = 0;
};

// The cell of each head, token by token, over all segments: x [N, H gates dim] are the inputs of the gates, r [H dim,
// gates dim] what is fed back. -> h [N, H dim]; state [H, states, dim]. All sequences take a step together, so that the
// feedback matrix is read once a step; threads share heads and sequences where it is small, and channels where it is
// not.
Var run_cells(const CellKind& kind, const Var& x, const Var& r, int64_t heads, const Batch& batch, size_t field);

}  // namespace sennit
