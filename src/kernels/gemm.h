#pragma once
#include <cstdint>

#include "kernels/level.h"

namespace sennit::kernels {

// Products of packed panels. A panel stores 32-bit units: a float (f32), or numbers that follow each other along k, the
// first one lowest: two bf16 (k padded with zeros), or four whole numbers from -127 to 127 (int8). A panel of b holds
// kPanelColumns columns as [depth][kPanelColumns] units, zeros beyond n, in the same form at every level; how a panel
// of a lies is the level's own affair. Panel i of a starts at i * a_rows * depth units, panel j of b at j *
// kPanelColumns * depth.
inline constexpr int64_t kPanelColumns = 32;
inline constexpr int64_t kPairedMultiple = 32;  // bf16: k is padded to a multiple of this

struct PanelProduct {
  const float* a;
  const float* b;
  int64_t m, n;
  int64_t a_rows;  // of a full panel of a: panel_rows(), also where m is a part of the product
  int64_t depth;   // units along k: k for f32, padded k / 2 for bf16, k / 4 for int8, a multiple of 16
  float* c;
  int64_t c_stride;
  bool accumulate;    // start from c, else from zero
  const float* bias;  // [n], added after the last k; or null
  const float* next_a = nullptr;  // what of a will be wanted after this, if that is known
  // int8: c = sum * b_scale * a_scale + bias, rounded after each step. Sums are exact up to k = 2^17 and begin from
  // zero.
  const float *a_scale = nullptr, *b_scale = nullptr;  // [m], [n]
  const int32_t* b_sums = nullptr;                     // [n], each of a column's numbers
};

// The kernels of one precision. An element of c is one chain of sums over k in order, the same whatever m and n and
// wherever the element stands: fma at f32; c + even + odd products at bf16; at AMX 16 pairs at a time. At int8 sums are
// whole, and every level gives the same bits.
struct PanelKernels {
  int64_t (*panel_rows)(int64_t m);  // rows of a full panel of a, when a has m; the last panel may have fewer
  int64_t block_rows;                // of a that best go together against panels of b in the second cache
  int64_t tile_columns;              // of c that a thread takes at a time where many are to be shared out
  // Packs one panel of `width` rows of a (or columns of b): element (i, k) is x[i * stride + k], or x[k * stride + i]
  // when k_major. At int8, x is units of four numbers each, and k counts those.
  void (*pack_a)(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel);
  void (*pack_b)(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel);
  void (*multiply)(const PanelProduct& product);
  // After a thread's last product for now: what the processor keeps for it is given back.
  void (*done)();
};

// At AMX, to the same bits: 2x2 tiles; 1x2, which keeps fewer live; and the faster of them on this thread now.
struct TileKernels {
  const PanelKernels *timed, *wide, *narrow;
};

struct Gemm {
  const PanelKernels* f32;
  TileKernels bf16, int8;
};

SENNIT_KERNEL_TABLE_AMX(Gemm, gemm)
namespace scalar {
extern const PanelKernels gemm_single;
}
#if defined(__x86_64__) && !defined(SENNIT_SCALAR_ONLY)
namespace avx2 {
extern const PanelKernels gemm_single;
}
namespace avx512 {
extern const PanelKernels gemm_single;
}
#endif

}  // namespace sennit::kernels
