#include "bench/peaks.h"

#include <algorithm>
#include <chrono>

#include "base/cpu.h"
#include "base/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sennit::bench {
namespace {

constexpr int64_t kRounds = 4 << 20;
volatile float sink;

using Loop = float (*)(int64_t rounds);  // each round: kChains independent operations
constexpr int kChains = 16;

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

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) float avx2_loop(int64_t rounds) {
  __m256 s[kChains / 2], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(1e-3f);
  for (auto& v : s) v = _mm256_setzero_ps();
  for (int64_t i = 0; i < 2 * rounds; ++i)
#pragma GCC unroll 8
    for (auto& v : s) v = _mm256_fmadd_ps(v, x, y);
  float total = 0;
  for (const auto& v : s) total += _mm256_cvtss_f32(v);
  return total;
}
__attribute__((target("avx512f"))) float avx512_loop(int64_t rounds) {
  __m512 s[kChains], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(1e-3f);
  for (auto& v : s) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (auto& v : s) v = _mm512_fmadd_ps(v, x, y);
  float total = 0;
  for (const auto& v : s) total += _mm512_cvtss_f32(v);
  return total;
}
__attribute__((target("avx512f,avx512bf16"))) float pairs_loop(int64_t rounds) {
  __m512 s[kChains];
  __m512i ones = _mm512_set1_epi32(0x3f803f80);
  for (auto& v : s) v = _mm512_setzero_ps();
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (auto& v : s) v = _mm512_dpbf16_ps(v, (__m512bh)ones, (__m512bh)ones);
  float total = 0;
  for (const auto& v : s) total += _mm512_cvtss_f32(v);
  return total;
}
#endif

// Operations a second of all threads, each `flops` worth.
double rate(Loop loop, double flops) {
  const int threads = thread_count();
  const double t = seconds_of([&] {
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) sink = loop(kRounds);
    });
  });
  return flops * kChains * kRounds * threads / t;
}

// Bytes a second when each thread reads a word of every line of its part, in kStreams runs side by side.
template <int kStreams>
double read_rate(const void* memory, int64_t bytes) {
  constexpr int64_t kLine = 8, kAhead = 16 * kLine;  // words
  const auto* words = static_cast<const uint64_t*>(memory);
  const int64_t lines = bytes / 64;
  const double t = seconds_of([&] {
    parallel_for(lines, 1 << 10, [&](int64_t begin, int64_t end) {
      const int64_t run = (end - begin) / kStreams * kLine;
      uint64_t sums[kStreams] = {};
      for (int64_t i = 0; i < run; i += kLine)
        for (int s = 0; s < kStreams; ++s) {
          const uint64_t* p = words + begin * kLine + s * run + i;
          __builtin_prefetch(p + kAhead);
          sums[s] += *p;
        }
      uint64_t total = 0;
      for (const uint64_t v : sums) total += v;
      sink = static_cast<float>(total);
    });
  });
  return static_cast<double>(bytes) / t;
}

}  // namespace

double seconds_of(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double peak_f32_flops() {
#if defined(__x86_64__)
  if (isa_level() >= IsaLevel::avx512) return rate(avx512_loop, 32);
  if (isa_level() == IsaLevel::avx2) return rate(avx2_loop, 16);
#endif
  return rate(scalar_loop, 2);
}

double peak_bf16_flops() {
#if defined(__x86_64__)
  if (isa_level() >= IsaLevel::avx512) return rate(pairs_loop, 64);
#endif
  return peak_f32_flops();
}

double peak_read_bytes(const void* memory, int64_t bytes) {
  return std::max({read_rate<1>(memory, bytes), read_rate<2>(memory, bytes), read_rate<4>(memory, bytes)});
}

}  // namespace sennit::bench
