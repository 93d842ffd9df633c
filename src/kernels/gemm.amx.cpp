#include "kernels/gemm.h"

#include "kernels/amx_tiles.h"
#include "kernels/faster_way.h"
#include "kernels/panels.h"
#include "kernels/processor_tiles.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

template <class Unit, bool kWide>
void multiply(const PanelProduct& t) {
  Unit unit;
  TileProduct<Unit, kWide>(unit, t).run();
}

template <bool kPaired>
int64_t depth_of(int64_t k) {
  return kPaired ? paired_depth(k, kPairedMultiple) : k;
}

// [depth / kTileRows][width][kTileRows] units.
template <bool kPaired>
void pack_a(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel) {
  const int64_t depth = depth_of<kPaired>(k);
  for (int64_t u = 0; u < depth; u += kTileRows) {
    float* tile = panel + u * width;
    if (!k_major) {
      for (int64_t i = 0; i < width; ++i) store(tile + i * kTileRows, row_units<kPaired>(x + i * stride, u, k));
      continue;
    }
    for (int64_t i = 0; i < width; i += kLanes) {
      vf square[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) square[r] = column_units<kPaired>(x + i, stride, u + r, k, width - i);
      transpose(square);
      const int64_t rows = smaller(width - i, kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r)
        if (r < rows) store(tile + (i + r) * kTileRows, square[r]);
    }
  }
}

template <bool kPaired>
void pack_b(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel) {
  pack_units<kPaired>(x, stride, k_major, width, k, panel, kPanelColumns, depth_of<kPaired>(k));
}

int64_t panel_rows(int64_t) {
  return 2 * kTileRows;
}

// While the core's other thread uses tiles too, a processor has none to spare for renaming, and the fewer are live the
// less it loses. That comes and goes within milliseconds.
template <class Unit>
void multiply_timed(const PanelProduct& t) {
  thread_local constinit FasterWay wide(10'000'000);  // ticks, some five milliseconds
  wide.first(__rdtsc(), t.m * t.n * t.depth) ? multiply<Unit, true>(t) : multiply<Unit, false>(t);
  if (wide.on_trial()) wide.done(__rdtsc());
}

template <class Unit, void (*kMultiply)(const PanelProduct&)>
constexpr PanelKernels kKernels{.panel_rows = panel_rows,
                                .block_rows = 2 * kTileRows,
                                .tile_columns = 32 * kPanelColumns,
                                .pack_a = pack_a<Unit::kPaired>,
                                .pack_b = pack_b<Unit::kPaired>,
                                .multiply = kMultiply,
                                .done = ProcessorTiles::release};

template <class Unit>
constexpr TileKernels kTiles{&kKernels<Unit, multiply_timed<Unit>>, &kKernels<Unit, multiply<Unit, true>>,
                             &kKernels<Unit, multiply<Unit, false>>};

}  // namespace

// Only addresses here: a table that is computed at start would run this file's AVX-512 on any machine.
constinit const Gemm gemm_table = {.f32 = &avx512::gemm_single, .bf16 = kTiles<PairTiles>, .int8 = kTiles<QuadTiles>};

}  // namespace sennit::kernels::SENNIT_LEVEL
