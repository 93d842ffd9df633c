#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Rotary position embedding (Su et al., arXiv:2104.09864, eq. 34) in place on x [rows, heads, head_dim]. The pairs of
// the first 2 * pairs components of each head are turned by their row's angles; the others stay.
struct RotaryTask {
  float* x;
  int64_t rows, row_stride, heads, head_dim;  // row_stride in floats
  const float *cos, *sin;                     // [rows, pairs]
  int64_t pairs;                              // at most head_dim / 2
  bool inverse = false;                       // turn back: the gradient of turning
};

struct Rotary {
  void (*halves)(const RotaryTask&);       // component i with i + pairs (GPT-NeoX, Llama in Hugging Face's layout)
  void (*interleaved)(const RotaryTask&);  // component 2i with 2i + 1 (the paper's, GPT-J)
};

SENNIT_KERNEL_TABLE(Rotary, rotary)

}  // namespace sennit::kernels
