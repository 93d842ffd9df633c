#pragma once
#include "kernels/amx_tiles.h"

namespace sennit::kernels {

// Products on tiles that are done in steps of a few instructions, between which vectors can be worked on: tiles then run
// beside them. Written over a Unit as TileProduct is, and of the same bits. Few tiles are live at once, see gemm.amx.cpp.
template <class Unit>
class TileSteps {
 public:
  explicit TileSteps(Unit& unit) : unit_(unit) {}

  // To be done by steps. What does not divide into whole tiles is done at once.
  void add(const PanelProduct& product) {
    if (product.m % kTileRows != 0 || product.n % kPanelColumns != 0 || product.depth == 0 || product.bias)
      return at_once(product);
    if (left_ == 0 && !c_) unit_.configure(kWhole);
    for (int64_t j = 0; j < product.n && product.m > 0; j += kPanelColumns) {
      if (count_ == kMost) rest();
      PanelProduct& panel = waiting_[count_++] = product;
      panel.b += j * product.depth, panel.c += j, panel.n = kPanelColumns;
      left_ += product.m / kTileRows * (product.depth / kTileRows);
    }
  }
  // From here on, `turns` calls of next() do what waits and ask for `floats` from `ahead` on, spread evenly.
  void spread(int64_t turns, const float* ahead = nullptr, int64_t floats = 0) {
    turns_ = turns, pace_ = left_, owed_ = 0;
    ahead_ = ahead, asked_ = (floats / turns + kTileRows - 1) / kTileRows * kTileRows;
  }
  void next() {
    for (int64_t at = 0; at < asked_; at += kTileRows) __builtin_prefetch(ahead_ + at, 0, 2);
    ahead_ += asked_;
    for (owed_ += pace_; owed_ >= turns_ && left_ > 0; owed_ -= turns_) step();
  }
  // All that waits.
  void rest() {
    while (left_ > 0) step();
    finish();
  }

 private:
  static constexpr int kMost = 8;
  static constexpr TileConfig kWhole = [] {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.rows[tile] = kTileRows, config.row_bytes[tile] = kTileBytes;
    return config;
  }();

  void at_once(const PanelProduct& product) {
    rest();
    TileProduct<Unit, false>(unit_, product).run();
  }

  // One tile of a by two of b.
  void step() {
    const PanelProduct& t = waiting_[first_];
    if (unit_at_ == 0) start(t);
    const int64_t panel = row_ / t.a_rows * t.a_rows, rows = t.m - panel < t.a_rows ? t.m - panel : t.a_rows;
    const float* a = t.a + panel * t.depth + unit_at_ * rows + (row_ - panel) * kTileRows;
    const float* b = t.b + unit_at_ * kPanelColumns;
    unit_.template load<2>(a, kTileBytes);
    unit_.template load<3>(b, 4 * kPanelColumns);
    unit_.template dot<0, 2, 3>();
    unit_.template load<3>(b + kTileRows, 4 * kPanelColumns);
    unit_.template dot<1, 2, 3>();
    --left_;
    if ((unit_at_ += kTileRows) < t.depth) return;
    unit_at_ = 0, row_ += kTileRows;
    if (row_ < t.m) return;
    row_ = 0, ++first_;
    if (first_ == count_) first_ = count_ = 0;
  }

  void start(const PanelProduct& t) {
    finish();
    c_ = t.c + row_ * t.c_stride, c_bytes_ = 4 * t.c_stride;
    if (t.accumulate) {
      unit_.template load<0>(c_, c_bytes_);
      unit_.template load<1>(c_ + kTileRows, c_bytes_);
    } else {
      unit_.template zero<0>();
      unit_.template zero<1>();
    }
  }

  // Sums are stored late: their last products take a while.
  void finish() {
    if (!c_) return;
    unit_.template store<0>(c_, c_bytes_);
    unit_.template store<1>(c_ + kTileRows, c_bytes_);
    c_ = nullptr;
  }

  Unit& unit_;
  PanelProduct waiting_[kMost];
  int first_ = 0, count_ = 0;
  int64_t row_ = 0, unit_at_ = 0;                       // of the first that waits
  int64_t left_ = 0, turns_ = 1, pace_ = 0, owed_ = 0;  // steps, see spread()
  const float* ahead_ = nullptr;
  int64_t asked_ = 0;                                   // floats at every turn
  float* c_ = nullptr;                                  // of the sums in tiles 0 and 1
  int64_t c_bytes_ = 0;
};

}  // namespace sennit::kernels
