#pragma once
#include <cstdint>

#include "kernels/gemm.h"

// The products of bf16 and int8 on AMX tiles, written over the unit that executes them: the processor's, or an
// emulation of it. Tiles of c hold floats or whole numbers, which only move here until their sums are complete. A Unit
// has, with tile numbers as template arguments and strides in bytes,
//   configure(const TileConfig&), zero<T>(), load<T>(p, stride), store<T>(p, stride), dot<C, A, B>().
// A panel of a holds up to 2 kTileRows rows as [depth / kTileRows][rows][kTileRows] units, so that a tile of it is
// contiguous; a panel of b is two tiles wide.
namespace sennit::kernels {

inline constexpr int64_t kTileRows = 16;   // also the units in a row of a tile
inline constexpr int64_t kTileBytes = 64;  // of a row

// The 64 bytes that LDTILECFG reads: palette 1, bytes per row and rows of each tile.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

template <class Unit, bool kWide>
class TileProduct {
 public:
  TileProduct(Unit& unit, const PanelProduct& t) : unit_(unit), t_(t) {}

  void run() {
    int64_t from = 0;
    do {
      units_ = t_.depth - from < kDepth ? t_.depth - from : kDepth;
      accumulate_ = t_.accumulate || from > 0, last_ = from + units_ == t_.depth;
      for (int64_t j = 0; j < t_.n; j += kPanelColumns)
        for (int64_t i = 0; i < t_.m; i += 2 * kTileRows) panels(i, j, from);
      from += units_;
    } while (from < t_.depth);
  }

 private:
  static constexpr int64_t kDepth = 1024;  // units along k of one pass over c: few, as they load and store its tiles

  static constexpr int64_t kStepLines = 4 * kTileRows * kPanelColumns / kTileBytes;  // of b at a step
  static constexpr int64_t kShort = 64;  // units of a panel so small that asking for it costs more than it gains

  static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

  // A panel of a by a panel of b.
  void panels(int64_t i, int64_t j, int64_t from) {
    const int64_t rows = least(t_.m - i, 2 * kTileRows), columns = least(t_.n - j, kPanelColumns);
    const float* a = t_.a + i * t_.depth + from * rows;
    const float* b = t_.b + j * t_.depth + from * kPanelColumns;
    float* c = t_.c + i * t_.c_stride + j;
    next_lines_ = 0;
    if (units_ > kShort) ask_for_next(i, j, b);
    if (kWide) columns_of(rows, rows, columns, a, b, c);
    for (int64_t r = 0; r < rows && !kWide; r += kTileRows)
      columns_of(least(rows - r, kTileRows), rows, columns, a + r * kTileRows, b, c + r * t_.c_stride);
    if (last_)
      for (int64_t r = 0; r < rows; ++r) end_row(i + r, j, columns, c + r * t_.c_stride);
  }

  // The blocks of rows share out the asking for the panel of b that comes after this one; where there is one block,
  // those of columns that for a.
  void ask_for_next(int64_t i, int64_t j, const float* b) {
    constexpr int64_t kRows = kWide ? 2 * kTileRows : kTileRows;
    const bool one = t_.m <= 2 * kTileRows;
    const int64_t steps = units_ / kTileRows * (one ? 2 * kTileRows / kRows : 1);  // of a block
    const int64_t blocks = one ? (t_.n + kPanelColumns - 1) / kPanelColumns : (t_.m + kRows - 1) / kRows;
    const float* next = one ? t_.next_a : j + kPanelColumns < t_.n ? b + kPanelColumns * t_.depth : nullptr;
    if (!next || steps == 0) return;
    const int64_t lines = next_lines_ = (kStepLines * units_ / kTileRows + blocks * steps - 1) / (blocks * steps);
    next_ = next + (one ? j / kPanelColumns : i / kRows) * steps * lines * kTileRows;
  }

  void columns_of(int64_t rows, int64_t a_rows, int64_t columns, const float* a, const float* b, float* c) {
    if (columns == kPanelColumns) return rows_of<2>(rows, kTileRows, a_rows, a, b, c);
    if (columns >= kTileRows) rows_of<1>(rows, kTileRows, a_rows, a, b, c);
    if (const int64_t rest = columns % kTileRows)
      rows_of<1>(rows, rest, a_rows, a, b + (columns - rest), c + (columns - rest));
  }

  template <int kColumnTiles>
  void rows_of(int64_t rows, int64_t columns, int64_t a_rows, const float* a, const float* b, float* c) {
    configure(rows, columns);
    if (rows > kTileRows)
      block<2, kColumnTiles>(a, a_rows, b, c);
    else
      block<1, kColumnTiles>(a, a_rows, b, c);
  }

  // Tiles 0-3 hold c (row tile, column tile), 4 and 5 the two of a, 6 the one of b in use.
  void configure(int64_t rows, int64_t columns) {
    if (rows == rows_ && columns == columns_) return;
    rows_ = rows, columns_ = columns;
    TileConfig config;
    const auto set = [&config](int tile, int64_t r, int64_t units) {
      config.rows[tile] = static_cast<uint8_t>(r);
      config.row_bytes[tile] = static_cast<uint16_t>(r ? 4 * units : 0);
    };
    const int64_t upper = least(rows, kTileRows), lower = rows - upper;
    set(0, upper, columns), set(1, upper, columns), set(2, lower, columns), set(3, lower, columns);
    set(4, upper, kTileRows), set(5, lower, kTileRows), set(6, kTileRows, columns);
    unit_.configure(config);
  }

  // The tiles of b pass one after the other through one register: the fewer live, the less a slow unit loses.
  template <int kRowTiles, int kColumnTiles>
  void block(const float* a, int64_t a_rows, const float* b, float* c) {
    constexpr bool kLower = kRowTiles == 2;
    start<kRowTiles, kColumnTiles>(c);
    const bool once = t_.m <= 2 * kTileRows && units_ > kShort;
    for (int64_t p = 0; p < units_; p += kTileRows, a += a_rows * kTileRows, b += kTileRows * kPanelColumns) {
      if (once) prefetch<kStepLines>(b + 4 * kTileRows * kPanelColumns);
      for (int64_t line = 0; line < next_lines_; ++line, next_ += kTileRows) __builtin_prefetch(next_, 0, 2);
      unit_.template load<4>(a, kTileBytes);
      if constexpr (kLower) unit_.template load<5>(a + kTileRows * kTileRows, kTileBytes);
      unit_.template load<6>(b, 4 * kPanelColumns);
      unit_.template dot<0, 4, 6>();
      if constexpr (kLower) unit_.template dot<2, 5, 6>();
      if constexpr (kColumnTiles == 2) {
        unit_.template load<6>(b + kTileRows, 4 * kPanelColumns);
        unit_.template dot<1, 4, 6>();
        if constexpr (kLower) unit_.template dot<3, 5, 6>();
      }
    }
    finish<kRowTiles, kColumnTiles>(c);
  }

  template <int kRowTiles, int kColumnTiles>
  void start(const float* c) {
    start_tile<0>(c);
    if constexpr (kColumnTiles == 2) start_tile<1>(c + kTileRows);
    if constexpr (kRowTiles == 2) start_tile<2>(c + kTileRows * t_.c_stride);
    if constexpr (kRowTiles == 2 && kColumnTiles == 2) start_tile<3>(c + kTileRows * t_.c_stride + kTileRows);
  }
  template <int kTile>
  void start_tile(const float* c) {
    if (accumulate_)
      unit_.template load<kTile>(c, 4 * t_.c_stride);
    else
      unit_.template zero<kTile>();
  }
  template <int kRowTiles, int kColumnTiles>
  void finish(float* c) {
    const int64_t bytes = 4 * t_.c_stride;
    unit_.template store<0>(c, bytes);
    if constexpr (kColumnTiles == 2) unit_.template store<1>(c + kTileRows, bytes);
    if constexpr (kRowTiles == 2) unit_.template store<2>(c + kTileRows * t_.c_stride, bytes);
    if constexpr (kRowTiles == 2 && kColumnTiles == 2)
      unit_.template store<3>(c + kTileRows * t_.c_stride + kTileRows, bytes);
  }

  template <int64_t kLines>
  static void prefetch(const float* p) {
    for (int64_t line = 0; line < kLines; ++line) __builtin_prefetch(p + line * kTileRows);
  }

  // What becomes of a row's complete sums.
  void end_row(int64_t i, int64_t j, int64_t columns, float* c) const {
    if (t_.a_scale) {
      const float by = t_.a_scale[i], *const scale = t_.b_scale + j;
      for (int64_t q = 0; q < columns; ++q)
        c[q] = static_cast<float>(__builtin_bit_cast(int32_t, c[q])) * scale[q] * by;
    }
    if (const float* const bias = t_.bias ? t_.bias + j : nullptr)
      for (int64_t q = 0; q < columns; ++q) c[q] += bias[q];
  }

  Unit& unit_;
  const PanelProduct& t_;
  int64_t units_ = 0, rows_ = 0, columns_ = 0;
  bool accumulate_ = false, last_ = false;
  const float* next_ = nullptr;  // of the next panel of b, to be brought to the second cache
  int64_t next_lines_ = 0;       // at every step
};

}  // namespace sennit::kernels
