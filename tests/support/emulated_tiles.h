#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/error.h"
#include "kernels/amx_tiles.h"

namespace sennit {

// AMX in software, after the operation sections of Intel's manual (LDTILECFG, TILELOADD, TILESTORED, TDPBF16PS,
// TDPBSSD): a load clears what lies beyond the tile's rows and bytes, and an operand of the wrong shape is an error,
// where the processor would raise #UD.
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
    check_operands(kC, kA, kB);
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

 protected:
  void check_operands(int c, int a, int b) const {
    use(c), use(a), use(b);
    SENNIT_CHECK(config_.rows[c] == config_.rows[a] && config_.row_bytes[c] == config_.row_bytes[b] &&
                 config_.row_bytes[a] == 4 * config_.rows[b]);
  }
  kernels::TileConfig config_;
  char tiles_[8][16][64] = {};

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

  bool configured_ = false;
};

// With the dot product of whole numbers instead: four of 8 bits, with sign, to a sum of 32.
class EmulatedInt8Tiles : public EmulatedTiles {
 public:
  template <int kC, int kA, int kB>
  void dot() {
    check_operands(kC, kA, kB);
    for (int m = 0; m < config_.rows[kC]; ++m)
      for (int n = 0; n < config_.row_bytes[kC] / 4; ++n) {
        uint32_t c;
        std::memcpy(&c, &tiles_[kC][m][4 * n], 4);
        for (int k = 0; k < config_.row_bytes[kA]; ++k)
          c += static_cast<uint32_t>(whole(kA, m, k) * whole(kB, k / 4, 4 * n + k % 4));
        std::memcpy(&tiles_[kC][m][4 * n], &c, 4);
      }
  }

 private:
  int whole(int tile, int row, int i) const { return static_cast<signed char>(tiles_[tile][row][i]); }
};

}  // namespace sennit
