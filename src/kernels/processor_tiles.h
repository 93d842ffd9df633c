#pragma once
#include "kernels/amx_tiles.h"
#include "kernels/simd.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The processor's tiles. Each instruction is written out, because g++ 12 takes LDTILECFG to read only 8 of its 64 bytes
// and does not accept template arguments as tile numbers.
struct ProcessorTiles {
  // Loading one takes as long as some ten products of tiles, so a thread's stays until it gives its tiles back.
  void configure(const TileConfig& config) {
    if (__builtin_memcmp(&config, &kept_, sizeof config) == 0) return;
    kept_ = config;
    asm volatile("ldtilecfg %0" ::"m"(kept_) : "memory");
  }
  static void release() {
    kept_ = TileConfig{.palette = 0};
    asm volatile("tilerelease" ::: "memory");
  }
  template <int kTile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  void load(const float* p, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(kTile), "r"(p), "r"(stride) : "memory");
  }
  template <int kTile>
  void store(float* p, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(kTile), "r"(p), "r"(stride) : "memory");
  }

 private:
  static inline thread_local constinit TileConfig kept_{.palette = 0};
};

struct PairTiles : ProcessorTiles {
  static constexpr bool kPaired = true;
  template <int kC, int kA, int kB>
  void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
  }
};
struct QuadTiles : ProcessorTiles {
  static constexpr bool kPaired = false;
  template <int kC, int kA, int kB>
  void dot() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
  }
};

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
