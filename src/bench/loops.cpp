#include "bench/loops.h"

#include <cstring>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sennit::bench {
namespace {

float scalar_loop(int64_t rounds) {
  float s[kChains] = {};
  float x = 0.5f, y = 1e-3f;
  asm volatile("" : "+x"(x), "+x"(y));
  for (int64_t i = 0; i < rounds; ++i)
    for (float& v : s) v = v * x + y;
  float total = 0;
  for (const float v : s) total += v;
  return total;
}

template <int kStreams>
float scalar_read(const char* p, int64_t bytes) {
  const int64_t run = bytes / kStreams;
  uint64_t sums[kStreams] = {};
  for (int64_t i = 0; i < run; i += 8)
    for (int s = 0; s < kStreams; ++s) {
      uint64_t word;
      std::memcpy(&word, p + s * run + i, 8);
      sums[s] ^= word;
    }
  uint64_t total = 0;
  for (const uint64_t v : sums) total ^= v;
  return static_cast<float>(total);
}

template <int kStreams>
void scalar_update(char* p, int64_t bytes) {
  const int64_t run = bytes / kStreams;
  for (int64_t i = 0; i < run; i += 8)
    for (int s = 0; s < kStreams; ++s) {
      uint64_t word;
      std::memcpy(&word, p + s * run + i, 8);
      word = ~word;
      std::memcpy(p + s * run + i, &word, 8);
    }
}

#if defined(__x86_64__)
#define SENNIT_AVX2 __attribute__((target("avx2,fma")))
#define SENNIT_AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vnni,avx512bf16")))

SENNIT_AVX2 float avx2_loop(int64_t rounds) {
  __m256 s[kChains / 2], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(1e-3f);
  for (auto& v : s) v = _mm256_setzero_ps();
  for (int64_t i = 0; i < 2 * rounds; ++i)
#pragma GCC unroll 8
    for (auto& v : s) v = _mm256_fmadd_ps(v, x, y);
  float total = 0;
  for (const auto& v : s) total += _mm256_cvtss_f32(v);
  return total;
}

// Products of bytes, added to sums of 16 bits.
SENNIT_AVX2 float byte_pairs_loop(int64_t rounds) {
  __m256i s[kChains / 2], x = _mm256_set1_epi8(1);
  for (auto& v : s) v = _mm256_setzero_si256();
  for (int64_t i = 0; i < 2 * rounds; ++i)
#pragma GCC unroll 8
    for (auto& v : s) {
      asm volatile("" : "+x"(x));
      v = _mm256_add_epi16(v, _mm256_maddubs_epi16(x, x));
    }
  for (int i = 1; i < kChains / 2; ++i) s[0] = _mm256_add_epi16(s[0], s[i]);
  return static_cast<float>(_mm256_cvtsi256_si32(s[0]));
}

SENNIT_AVX512 float avx512_loop(int64_t rounds) {
  __m512 s[kChains], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(1e-3f);
  for (auto& v : s) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (auto& v : s) v = _mm512_fmadd_ps(v, x, y);
  float total = 0;
  for (const auto& v : s) total += _mm512_cvtss_f32(v);
  return total;
}

SENNIT_AVX512 float pairs_loop(int64_t rounds) {
  __m512 s[kChains];
  const __m512i ones = _mm512_set1_epi32(0x3f803f80);
  for (auto& v : s) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (auto& v : s) v = _mm512_dpbf16_ps(v, (__m512bh)ones, (__m512bh)ones);
  float total = 0;
  for (const auto& v : s) total += _mm512_cvtss_f32(v);
  return total;
}

SENNIT_AVX512 float first_of(__m512i v) {
  alignas(64) int lanes[16];
  _mm512_store_si512(lanes, v);
  return static_cast<float>(lanes[0]);
}

SENNIT_AVX512 float quads_loop(int64_t rounds) {
  __m512i s[kChains];
  const __m512i ones = _mm512_set1_epi32(0x01010101);
  for (auto& v : s) v = _mm512_setzero_si512();
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (auto& v : s) v = _mm512_dpbusd_epi32(v, ones, ones);
  for (int i = 1; i < kChains; ++i) s[0] = _mm512_add_epi32(s[0], s[i]);
  return first_of(s[0]);
}

template <int kStreams>
SENNIT_AVX2 float avx2_read(const char* p, int64_t bytes) {
  const int64_t run = bytes / kStreams;
  __m256i sums[kStreams];
  for (auto& s : sums) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < run; i += 64)
    for (int s = 0; s < kStreams; ++s)
      for (int half = 0; half < 64; half += 32)
        sums[s] =
            _mm256_xor_si256(sums[s], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + s * run + i + half)));
  int total = 0;
  for (const auto& s : sums) total ^= _mm256_cvtsi256_si32(s);
  return static_cast<float>(total);
}

template <int kStreams>
SENNIT_AVX512 float avx512_read(const char* p, int64_t bytes) {
  const int64_t run = bytes / kStreams;
  __m512i sums[4];
  for (auto& s : sums) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < run; i += 4 * 64 / kStreams)
#pragma GCC unroll 4
    for (int s = 0; s < 4; ++s)
      sums[s] = _mm512_xor_si512(sums[s], _mm512_loadu_si512(p + s % kStreams * run + i + s / kStreams * 64));
  for (int s = 1; s < 4; ++s) sums[0] = _mm512_xor_si512(sums[0], sums[s]);
  return first_of(sums[0]);
}

template <int kStreams>
SENNIT_AVX2 void avx2_update(char* p, int64_t bytes) {
  const int64_t run = bytes / kStreams;
  const __m256i ones = _mm256_set1_epi32(-1);
  for (int64_t i = 0; i < run; i += 64)
    for (int s = 0; s < kStreams; ++s)
      for (int half = 0; half < 64; half += 32) {
        auto* at = reinterpret_cast<__m256i*>(p + s * run + i + half);
        _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), ones));
      }
}

template <int kStreams>
SENNIT_AVX512 void avx512_update(char* p, int64_t bytes) {
  const int64_t run = bytes / kStreams;
  const __m512i ones = _mm512_set1_epi32(-1);
  for (int64_t i = 0; i < run; i += 64)
    for (int s = 0; s < kStreams; ++s) {
      char* at = p + s * run + i;
      _mm512_storeu_si512(at, _mm512_xor_si512(_mm512_loadu_si512(at), ones));
    }
}

// Tiles 0-3 accumulate, 4 and 5 are rows of a, 6 and 7 columns of b; all 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Operands walk through kWindow bytes, so that they come from the L2 cache. kChains tile products a round: 2 x 2 tiles
// hold eight tiles alive, 1 x 2 four.
template <bool kWide, bool kInt8>
float tile_loop(int64_t rounds) {
  constexpr int64_t kTile = 1024, kWindow = 512 * kTile;
  alignas(64) static thread_local char memory[kWindow];
  static const TileConfig config;
  asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  asm volatile("tilezero %tmm0\n tilezero %tmm1\n tilezero %tmm2\n tilezero %tmm3");
  int64_t at = 0;
  const auto next = [&at] {
    const char* p = memory + at;
    at = (at + kTile) % kWindow;
    return p;
  };
  for (int64_t i = 0; i < rounds; ++i)
    for (int group = 0; group < kChains / (kWide ? 4 : 2); ++group) {
      const int64_t stride = 64;
      if constexpr (kWide) {
        asm volatile("tileloadd (%0,%1,1), %%tmm4" ::"r"(next()), "r"(stride) : "memory");
        asm volatile("tileloadd (%0,%1,1), %%tmm5" ::"r"(next()), "r"(stride) : "memory");
        for (int column = 0; column < 2; ++column) {
          asm volatile("tileloadd (%0,%1,1), %%tmm6" ::"r"(next()), "r"(stride) : "memory");
          if constexpr (kInt8) {
            if (column == 0)
              asm volatile("tdpbusd %tmm6, %tmm4, %tmm0\n tdpbusd %tmm6, %tmm5, %tmm1");
            else
              asm volatile("tdpbusd %tmm6, %tmm4, %tmm2\n tdpbusd %tmm6, %tmm5, %tmm3");
          } else {
            if (column == 0)
              asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n tdpbf16ps %tmm6, %tmm5, %tmm1");
            else
              asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm2\n tdpbf16ps %tmm6, %tmm5, %tmm3");
          }
        }
      } else {
        asm volatile("tileloadd (%0,%1,1), %%tmm4" ::"r"(next()), "r"(stride) : "memory");
        asm volatile("tileloadd (%0,%1,1), %%tmm6" ::"r"(next()), "r"(stride) : "memory");
        if constexpr (kInt8)
          asm volatile("tdpbusd %tmm6, %tmm4, %tmm0");
        else
          asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm0");
        asm volatile("tileloadd (%0,%1,1), %%tmm6" ::"r"(next()), "r"(stride) : "memory");
        if constexpr (kInt8)
          asm volatile("tdpbusd %tmm6, %tmm4, %tmm1");
        else
          asm volatile("tdpbf16ps %tmm6, %tmm4, %tmm1");
      }
    }
  asm volatile("tilerelease" ::: "memory");
  return memory[0];
}
#endif

template <int kStreams>
float read_streams(const char* p, int64_t bytes) {
#if defined(__x86_64__)
  if (isa_level() >= IsaLevel::avx512) return avx512_read<kStreams>(p, bytes);
  if (isa_level() == IsaLevel::avx2) return avx2_read<kStreams>(p, bytes);
#endif
  return scalar_read<kStreams>(p, bytes);
}

template <int kStreams>
void update_streams(char* p, int64_t bytes) {
#if defined(__x86_64__)
  if (isa_level() >= IsaLevel::avx512) return avx512_update<kStreams>(p, bytes);
  if (isa_level() == IsaLevel::avx2) return avx2_update<kStreams>(p, bytes);
#endif
  scalar_update<kStreams>(p, bytes);
}

}  // namespace

#if defined(__x86_64__)
Unit f32_unit() {
  if (isa_level() >= IsaLevel::avx512) return {avx512_loop, 32};
  if (isa_level() == IsaLevel::avx2) return {avx2_loop, 16};
  return {scalar_loop, 2};
}
Unit bf16_unit() {
  return isa_level() >= IsaLevel::avx512 ? Unit{pairs_loop, 64} : Unit{};
}
Unit int8_unit() {
  if (isa_level() >= IsaLevel::avx512) return {quads_loop, 128};
  return isa_level() == IsaLevel::avx2 ? Unit{byte_pairs_loop, 64} : Unit{};
}
Unit amx_bf16_unit(bool wide) {
  return isa_level() < IsaLevel::amx ? Unit{}
                                     : Unit{wide ? tile_loop<true, false> : tile_loop<false, false>, 2 * 16 * 16 * 32};
}
Unit amx_int8_unit(bool wide) {
  return isa_level() < IsaLevel::amx ? Unit{}
                                     : Unit{wide ? tile_loop<true, true> : tile_loop<false, true>, 2 * 16 * 16 * 64};
}
#else
Unit f32_unit() {
  return {scalar_loop, 2};
}
Unit bf16_unit() {
  return {};
}
Unit int8_unit() {
  return {};
}
Unit amx_bf16_unit(bool) {
  return {};
}
Unit amx_int8_unit(bool) {
  return {};
}
#endif

float read_loop(const void* memory, int64_t bytes, int streams) {
  const char* p = static_cast<const char*>(memory);
  return streams == 1   ? read_streams<1>(p, bytes)
         : streams == 2 ? read_streams<2>(p, bytes)
                        : read_streams<4>(p, bytes);
}

void update_loop(void* memory, int64_t bytes, int streams) {
  char* p = static_cast<char*>(memory);
  streams == 1 ? update_streams<1>(p, bytes) : streams == 2 ? update_streams<2>(p, bytes) : update_streams<4>(p, bytes);
}

void copy_loop(const void* from, void* to, int64_t bytes) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace sennit::bench
