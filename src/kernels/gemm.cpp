#include "kernels/gemm.h"

#include "kernels/panels.h"
#include "kernels/quads.h"
#include "kernels/tile.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// How a unit of a and a unit of b add to a sum, and how many rows and vectors of sums then fit the registers.
struct Single {
  static constexpr bool kPaired = false, kWhole = false;
#if defined(SENNIT_LEVEL_avx512)
  static constexpr int kRows = 14, kVectors = 2;
#elif defined(SENNIT_LEVEL_avx2)
  static constexpr int kRows = 6, kVectors = 2;
#else
  static constexpr int kRows = 4, kVectors = 2;
#endif
  static SENNIT_INLINE vf term(vf a, vf b, vf sum) {
    return fma(a, b, sum);
  }
};
struct Paired {
  static constexpr bool kPaired = true, kWhole = false;
#if defined(SENNIT_LEVEL_avx512)
  static constexpr int kRows = 14, kVectors = 2;
#else
  static constexpr int kRows = 4, kVectors = 2;
#endif
  static SENNIT_INLINE vf term(vf a, vf b, vf sum) {
    return dot_pairs(a, b, sum);
  }
};
struct Quads {
  static constexpr bool kPaired = false, kWhole = true;
#if defined(SENNIT_LEVEL_avx512)
  static constexpr int kRows = 14, kVectors = 2;
#elif defined(SENNIT_LEVEL_avx2)
  static constexpr int kRows = 2, kVectors = 4;
#else
  static constexpr int kRows = 4, kVectors = 2;
#endif
  static SENNIT_INLINE vf term(vf a, vf b, vf sum) {
    return dot_quads(a, b, sum);
  }
};

constexpr int64_t kAhead = 16 * kPanelColumns;  // units of a panel of b to prefetch beyond the one in use
constexpr int64_t kAheadOfA = 32 * 14;          // the same of a
constexpr int64_t kStepsEach = 32;              // along k for a row of c, asked for before its sums are there
constexpr int64_t kFar = 256 * kPanelColumns;   // units of a panel of b to ask for where it is read from memory alone
// Units along k of one pass over c. A wide tile takes its time, so that its panels may come from the third cache and
// most chains end in one pass; a narrow one wants those of 224 rows in the second.
constexpr int64_t kDepth = kLanes == 16 ? 2048 : 512;

constexpr int64_t kLine = 16;  // units
constexpr int64_t lines_of(int64_t columns) {
  return (columns + kLine - 1) / kLine;
}

// What the register tile that starts at c needs to know of the product.
struct Pass {
  int64_t units, b_panel;  // length of the chain, distance of panels of b
  int64_t stride, n;       // of c; columns left from the tile's first
  bool accumulate;
  const PanelProduct* ends;  // the product, where the chains end here; else null
  int64_t i, j;              // where the tile stands in it
  // Lines of b to ask for at the first step, what lies in the row below them at the next, and so on; or null.
  const float *ask = nullptr, *ask_too = nullptr;
};

// R rows of P panels, V vectors of each; kFull when all their columns are in c.
template <class Unit, int R, int V, int P, bool kFull>
[[gnu::noinline]] void tile(const float* a, const float* b, float* c, const Pass& pass) {
  constexpr int64_t kLines = lines_of(V * kLanes);
  const auto column = [](int v) __attribute__((always_inline)) {
    return v / V * kPanelColumns + v % V * kLanes;
  };
  const auto get = [&](const float* row, int v) __attribute__((always_inline)) {
    return kFull ? load(row + column(v)) : load_some(row + column(v), pass.n - column(v));
  };
  const int64_t stride = pass.stride;
  vf sums[R][P * V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < P * V; ++v) sums[r][v] = pass.accumulate ? get(c + r * stride, v) : zero();
  add_products(
      sums, pass.units, [](vf x, vf y, vf s) __attribute__((always_inline)) { return Unit::term(x, y, s); },
      [ =, ask = pass.ask ? pass.ask : b, ask_too = pass.ask_too ? pass.ask_too : b ](int64_t p, int r)
          __attribute__((always_inline)) {
            if (R > 2 && r == 0) __builtin_prefetch(a + p * R + kAheadOfA);
            if (P == 1 && r == 1) __builtin_prefetch(ask + p * kPanelColumns, 0, 2);
            if (P == 1 && r == 2) __builtin_prefetch(ask_too + p * kPanelColumns, 0, 2);
            if (P == 1 && r == 7)  // of high tiles: to short ones its price shows
              __builtin_prefetch(c + smaller(p / kStepsEach, R - 1) * stride + p % kLines * kLine, 0, 2);
            return set(a[p * R + r]);
          },
      [ =, distance = pass.b_panel ](int64_t p, int v) __attribute__((always_inline)) {
        const float* place = b + v / V * distance + p * kPanelColumns + v % V * kLanes;
        if (v * kLanes % kLine == 0) __builtin_prefetch(place + kAhead);
        return load(place);
      });
  if (pass.ends) {
    const PanelProduct& t = *pass.ends;
#pragma GCC unroll 16
    for (int v = 0; v < P * V; ++v) {
      if constexpr (Unit::kWhole) {
        const vf scale = get(t.b_scale + pass.j, v), b_sum = get(reinterpret_cast<const float*>(t.b_sums) + pass.j, v);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sums[r][v] = float_sums(sums[r][v], b_sum) * scale * set(t.a_scale[pass.i + r]);
      }
      if (!t.bias) continue;
      const vf shift = get(t.bias + pass.j, v);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sums[r][v] = sums[r][v] + shift;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < P * V; ++v) {
      float* place = c + r * stride + column(v);
      if constexpr (kFull)
        store(place, sums[r][v]);
      else
        store_some(place, sums[r][v], pass.n - column(v));
    }
}

template <class Unit, int R>
SENNIT_INLINE void tile_of(int64_t rows, const float* a, const float* b, float* c, const Pass& pass) {
  constexpr int V = Unit::kVectors;
  if (rows < R) {
    if constexpr (R > 1) tile_of<Unit, R - 1>(rows, a, b, c, pass);
  } else if (pass.n >= V * kLanes) {
    tile<Unit, R, V, 1, true>(a, b, c, pass);
  } else {
    tile<Unit, R, V, 1, false>(a, b, c, pass);
  }
}

// A slice of b stays in the caches while the panels of a pass by. So that memory has work meanwhile, the first of these
// ask for the slice that comes next, a line of it at each step; where there is but one, for what it will read later on.
template <class Unit>
void multiply_blocks(const PanelProduct& t) {
  constexpr int64_t kSlice = Unit::kVectors * kLanes;  // columns
  constexpr int64_t kLines = lines_of(kSlice);         // at a step
  const int64_t height = t.a_rows;
  const bool again = t.m > height;  // a slice is wanted more than once
  int64_t from = 0;
  do {
    const int64_t units = again ? smaller(t.depth - from, kDepth) : t.depth;
    const auto slice = [&](int64_t j) {
      return t.b + j / kPanelColumns * kPanelColumns * t.depth + from * kPanelColumns + j % kPanelColumns;
    };
    Pass pass{units, 0, t.c_stride, t.n, t.accumulate || from > 0, from + units == t.depth ? &t : nullptr, 0, 0};
    for (int64_t j = 0; j < t.n; j += kSlice, pass.j = j, pass.n = t.n - j)
      for (int64_t i = 0; i < t.m; i += height) {
        const int64_t rows = smaller(t.m - i, height), line = i / height;
        pass.i = i, pass.ask = pass.ask_too = nullptr;
        if (!again) pass.ask = slice(j) + kFar, pass.ask_too = pass.ask + (kLines - 1) * kLine;
        if (again && line < kLines && pass.n > kSlice) pass.ask = slice(j + kSlice) + line * kLine;
        tile_of<Unit, Unit::kRows>(rows, t.a + i * t.depth + from * rows, slice(j), t.c + i * t.c_stride + j, pass);
      }
    from += units;
  } while (from < t.depth);
}

// Few rows: the panels of b are read once, P of them side by side so that several streams of memory run.
template <class Unit, int R, int P>
void stream(const PanelProduct& t) {
  constexpr int kWhole = kPanelColumns / kLanes;
  int64_t j = 0;
  const auto pass = [&] { return Pass{t.depth, kPanelColumns * t.depth, t.c_stride, t.n - j, t.accumulate, &t, 0, j}; };
  for (; j + P * kPanelColumns <= t.n; j += P * kPanelColumns)
    tile<Unit, R, kWhole, P, true>(t.a, t.b + j * t.depth, t.c + j, pass());
  for (; j < t.n; j += kPanelColumns) tile<Unit, R, kWhole, 1, false>(t.a, t.b + j * t.depth, t.c + j, pass());
}

template <class Unit>
void multiply(const PanelProduct& t) {
  switch (t.m) {
#if defined(SENNIT_LEVEL_avx512)
    case 1:
      return stream<Unit, 1, 4>(t);
    case 2:
      return stream<Unit, 2, 4>(t);
    case 3:
      return stream<Unit, 3, 2>(t);
    case 4:
      return stream<Unit, 4, 2>(t);
#elif defined(SENNIT_LEVEL_avx2)
    case 1:
      return stream<Unit, 1, 2>(t);
    case 2:
      return stream<Unit, 2, 1>(t);
#endif
    default:
      return multiply_blocks<Unit>(t);
  }
}

// Panels of equal height, as a short last one would use the registers badly.
template <class Unit>
int64_t panel_rows(int64_t m) {
  const int64_t panels = (m + Unit::kRows - 1) / Unit::kRows;
  return panels > 1 ? (m + panels - 1) / panels : Unit::kRows;
}

template <class Unit>
int64_t depth_of(int64_t k) {
  return Unit::kPaired ? paired_depth(k, kPairedMultiple) : k;
}
template <class Unit>
void pack_a(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel) {
  pack_units<Unit::kPaired>(x, stride, k_major, width, k, panel, width, depth_of<Unit>(k));
  if constexpr (Unit::kWhole)
    for_lanes(width * k, [=](int64_t i, int64_t n) { store_n(panel + i, left_quads(load_n(panel + i, n)), n); });
}
template <class Unit>
void pack_b(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel) {
  pack_units<Unit::kPaired>(x, stride, k_major, width, k, panel, kPanelColumns, depth_of<Unit>(k));
}

void nothing_kept() {}

template <class Unit>
constexpr PanelKernels kKernels{.panel_rows = panel_rows<Unit>,
                                .block_rows = 224,
                                .tile_columns = 4 * kPanelColumns,
                                .pack_a = pack_a<Unit>,
                                .pack_b = pack_b<Unit>,
                                .multiply = multiply<Unit>,
                                .done = nothing_kept};

}  // namespace

constinit const PanelKernels gemm_single = kKernels<Single>;
constinit const Gemm gemm_table = {.f32 = &gemm_single,
                                   .bf16 = {&kKernels<Paired>, &kKernels<Paired>, &kKernels<Paired>},
                                   .int8 = {&kKernels<Quads>, &kKernels<Quads>, &kKernels<Quads>}};

}  // namespace sennit::kernels::SENNIT_LEVEL
