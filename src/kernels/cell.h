#pragma once
#include <cstdint>

namespace sennit::kernels {

// What the loop over tokens (sequence/cells.h) hands to a recurrent cell of `dim` channels: one token of one sequence,
// and which channels, so that several threads may share a step. A step has one layer or two; the gates of each are fed
// by a vector [dim] through columns of the feedback matrix r [dim, gates dim]: the first layer's by h, state 0, the
// second's by the vector m that the first layer makes.
struct CellToken {
  const float* x;           // [gates dim], inputs of the gates
  float* p;                 // [kept dim]: what the layers so far are fed, gate by gate, becomes what `back` asks for
  const float* before;      // [states dim]
  float* after;             // [states dim]
  float* y;                 // [dim], h
  int64_t dim, begin, end;  // channels [begin, end)
  float limit;              // of the cells that have one
};

struct CellTokenBack {
  float* p;             // [kept dim]; the gradients of what the gates were fed take the place of it
  const float* before;  // [states dim]
  const float* dy;      // [dim]
  float* d;   // [states dim], then dm [dim]: gradients of the new states become those of the old ones, but for what is
              // fed back
  float* dx;  // [gates dim], added to
  int64_t dim, begin, end;
  float limit;
};

struct CellFunctions {
  void (*advance)(int64_t layer, const CellToken& token);
  void (*back)(int64_t layer, const CellTokenBack& token);  // the last layer first
};

}  // namespace sennit::kernels
