#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "kernels/amx_tiles.h"

namespace sennit {

// AMX in software, after the operation sections of Intel's manual (LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS): a load
// clears what lies beyond the tile's rows and bytes, and an operand of the wrong shape is an error, where the processor
// would raise #UD.
class EmulatedTiles {
 public:
  void configure(const kernels::TileConfig& config) {
    SENNIT_CHECK(config.palette == 1 && config.start_row == 0, "palette {}", config.palette);
    for (int t = 0; t < 16; ++t) {
      const bool none = config.rows[t] == 0 && config.row_bytes[t] == 0;
      const bool fits =
          config.rows[t] >= 1 && config.rows[t] <= 16 && config.row_bytes[t] >= 1 && config.row_bytes[t] <= 64;
      SENNIT_CHECK(none || (fits && t < 8), "tile {}: {} rows of {} bytes", t, config.rows[t], config.row_bytes[t]);
    }
    config_ = config, configured_ = true;
    std::memset(tiles_, 0, sizeof tiles_);
  }
  template <int kTile>
  void zero() {
    use(kTile);
    std::memset(tiles_[kTile], 0, sizeof tiles_[kTile]);
  }
  template <int kTile>
  void load(const float* p, int64_t stride) {
    zero<kTile>();
    for (int r = 0; r < config_.rows[kTile]; ++r)
      std::memcpy(tiles_[kTile][r], reinterpret_cast<const char*>(p) + r * stride, config_.row_bytes[kTile]);
  }
  template <int kTile>
  void store(float* p, int64_t stride) {
    use(kTile);
    for (int r = 0; r < config_.rows[kTile]; ++r)
      std::memcpy(reinterpret_cast<char*>(p) + r * stride, tiles_[kTile][r], config_.row_bytes[kTile]);
  }
  template <int kC, int kA, int kB>
  void dot() {
    use(kC), use(kA), use(kB);
    SENNIT_CHECK(config_.rows[kC] == config_.rows[kA] && config_.row_bytes[kC] == config_.row_bytes[kB] &&
                 config_.row_bytes[kA] == 4 * config_.rows[kB]);
    for (int m = 0; m < config_.rows[kC]; ++m)
      for (int n = 0; n < config_.row_bytes[kC] / 4; ++n) {
        float even = 0, odd = 0;
        for (int k = 0; k < config_.row_bytes[kA] / 4; ++k) {
          even = flushed(std::fma(half(kA, m, 2 * k), half(kB, k, 2 * n), even));
          odd = flushed(std::fma(half(kA, m, 2 * k + 1), half(kB, k, 2 * n + 1), odd));
        }
        float c;
        std::memcpy(&c, &tiles_[kC][m][4 * n], 4);
        c = flushed(flushed(c) + flushed(even + odd));
        std::memcpy(&tiles_[kC][m][4 * n], &c, 4);
      }
  }

 private:
  void use(int tile) const { SENNIT_CHECK(configured_ && config_.rows[tile] > 0, "tile {} is not configured", tile); }
  static float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
  float half(int tile, int row, int i) const {
    uint16_t h;
    std::memcpy(&h, &tiles_[tile][row][2 * i], 2);
    const uint32_t bits = uint32_t{h} << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return flushed(x);
  }

  kernels::TileConfig config_;
  char tiles_[8][16][64] = {};
  bool configured_ = false;
};

}  // namespace sennit
