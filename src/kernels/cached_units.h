#pragma once
// Products of a few queries with rows of keys and values, a vector of units at a time: a unit is four bytes of a head,
// that is a number, two of 16 bits or four codes of q8_0. Whatever the format, keys are turned as units and widened
// afterwards. For kernels only (see simd.h); heads must be whole vectors.
#include "kernels/cached_rows.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

template <CacheFormat F>
constexpr int kUnitNumbers = static_cast<int>(4 / cached_unit_bytes(F));
template <CacheFormat F>
constexpr int64_t kUnitsDim = kLanes* kUnitNumbers<F>;  // numbers of a vector of units
constexpr int kUnitScales = kLanes > 8 ? 2 : 1;         // of a vector of q8_0's units

// Vectors of units are of use where there are lanes, and hold whole scales of q8_0.
inline bool whole_units(CacheFormat format, int64_t dim) {
  return kLanes > 1 && dim % (kLanes * (4 / cached_unit_bytes(format))) == 0;
}

// A scale and what 2^15 + 128 times it is.
struct UnitScale {
  vf by, offset;
};

#if defined(SENNIT_LEVEL_avx512) || defined(SENNIT_LEVEL_amx)
SENNIT_INLINE vf unit_bits_left(vf units, int bits) {
  return {_mm512_castsi512_ps(_mm512_sll_epi32(_mm512_castps_si512(units.v), _mm_cvtsi32_si128(bits)))};
}
SENNIT_INLINE vf unit_bits_right(vf units, int bits) {
  return {_mm512_castsi512_ps(_mm512_srl_epi32(_mm512_castps_si512(units.v), _mm_cvtsi32_si128(bits)))};
}
// (units & mask) ^ bits
SENNIT_INLINE vf unit_masked(vf units, int mask, int bits) {
  const __m512i u = _mm512_castps_si512(units.v);
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(u, _mm512_set1_epi32(mask), _mm512_set1_epi32(bits), 0x6A))};
}
// The lower half of each unit as an f16.
SENNIT_INLINE vf unit_halves(vf units) {
  return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_castps_si512(units.v)))};
}
// The scales of a head's vector of units in their lanes.
SENNIT_INLINE vf lane_scales(const uint8_t* scales) {
  int two;
  __builtin_memcpy(&two, scales, 4);
  const __m256i place =
      _mm256_set_epi64x(0x0302030203020302, 0x0302030203020302, 0x0100010001000100, 0x0100010001000100);
  return {_mm512_cvtph_ps(_mm256_shuffle_epi8(_mm256_set1_epi32(two), place))};
}
#elif defined(SENNIT_LEVEL_avx2)
SENNIT_INLINE vf unit_bits_left(vf units, int bits) {
  return {_mm256_castsi256_ps(_mm256_sll_epi32(_mm256_castps_si256(units.v), _mm_cvtsi32_si128(bits)))};
}
SENNIT_INLINE vf unit_bits_right(vf units, int bits) {
  return {_mm256_castsi256_ps(_mm256_srl_epi32(_mm256_castps_si256(units.v), _mm_cvtsi32_si128(bits)))};
}
SENNIT_INLINE vf unit_masked(vf units, int mask, int bits) {
  const __m256i kept = _mm256_and_si256(_mm256_castps_si256(units.v), _mm256_set1_epi32(mask));
  return {_mm256_castsi256_ps(_mm256_xor_si256(kept, _mm256_set1_epi32(bits)))};
}
SENNIT_INLINE vf unit_halves(vf units) {
  const __m256i low = _mm256_and_si256(_mm256_castps_si256(units.v), _mm256_set1_epi32(0xFFFF));
  return {_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)))};
}
SENNIT_INLINE vf lane_scales(const uint8_t* scales) {
  uint16_t one;
  __builtin_memcpy(&one, scales, 2);
  return set_f16(one);
}
#else
SENNIT_INLINE uint32_t unit_bits(vf units) {
  return __builtin_bit_cast(uint32_t, units.v);
}
SENNIT_INLINE vf unit_bits_left(vf units, int bits) {
  return {__builtin_bit_cast(float, unit_bits(units) << bits)};
}
SENNIT_INLINE vf unit_bits_right(vf units, int bits) {
  return {__builtin_bit_cast(float, unit_bits(units) >> bits)};
}
SENNIT_INLINE vf unit_masked(vf units, int mask, int bits) {
  return {__builtin_bit_cast(float, (unit_bits(units) & static_cast<uint32_t>(mask)) ^ static_cast<uint32_t>(bits))};
}
SENNIT_INLINE vf unit_halves(vf units) {
  return set_f16(static_cast<uint16_t>(unit_bits(units)));
}
SENNIT_INLINE vf lane_scales(const uint8_t* scales) {
  uint16_t one;
  __builtin_memcpy(&one, scales, 2);
  return set_f16(one);
}
#endif

SENNIT_INLINE UnitScale unit_scale(vf by) {
  return {by, by * set(-32896)};
}

// Number `part` of each unit. A code plus 128, written below the first bit of 2^15, is 2^15 + 128 + code: what it and
// its scale come to is exact, as that of a whole number of 9 bits and of 8.
template <CacheFormat F>
SENNIT_INLINE vf unit_number(vf units, int part, UnitScale scale) {
  if constexpr (F == CacheFormat::f32) return units;
  if constexpr (F == CacheFormat::bf16) return part == 0 ? unit_bits_left(units, 16) : unit_masked(units, ~0xFFFF, 0);
  if constexpr (F == CacheFormat::f16) return unit_halves(part == 0 ? units : unit_bits_right(units, 16));
  const vf code = part == 0 ? unit_bits_left(units, 8) : part == 1 ? units : unit_bits_right(units, 8 * (part - 1));
  return fma(unit_masked(code, 0xFF00, 0x47008000), scale.by, scale.offset);
}

// Vector `part` of the numbers of a vector of units at p, and which of them lane `lane` of it is. Halves are widened
// where they stand, other numbers unit by unit.
template <CacheFormat F>
SENNIT_INLINE vf unit_vector(const uint8_t* p, vf units, int part, UnitScale scale) {
  if constexpr (F == CacheFormat::f16) return load_f16(reinterpret_cast<const uint16_t*>(p) + part * kLanes);
  return unit_number<F>(units, part, scale);
}
template <CacheFormat F>
constexpr int unit_place(int part, int lane) {
  return F == CacheFormat::f16 ? part * kLanes + lane : lane * kUnitNumbers<F> + part;
}

// Asks for what stands at p in a later row. One row of a head is no stream that the processor foresees, and what is
// asked for faster than memory answers is not heard: so once for each vector, and not into the first cache.
SENNIT_INLINE void ask_for_later(const uint8_t* p, int64_t row_bytes) {
  constexpr int64_t kRowsAhead = 64;
  __builtin_prefetch(p + kRowsAhead * row_bytes, 0, 2);
}
SENNIT_INLINE vf load_units(const uint8_t* p, int64_t row_bytes) {
  ask_for_later(p, row_bytes);
  return load(reinterpret_cast<const float*>(p));
}

// Vectors of keys that a query meets side by side: chains of sums that wait for each other no longer.
constexpr int kKeyVectors = 4;
constexpr int64_t kKeysAbreast = kKeyVectors * kLanes;
constexpr int kQueriesAbreast = kLanes > 8 ? 4 : 2;

// Scales of one run of some rows, or of two.
template <int N = kLanes>
struct ScalePairs {
  alignas(64) float pairs[N] = {};

  template <int kRuns = kUnitScales>
  SENNIT_INLINE void read(int64_t row, const uint8_t* scales) {
    __builtin_memcpy(pairs + row, scales, 2 * kRuns);
  }
  // Those of rows first, ..., first + kLanes - 1.
  SENNIT_INLINE vf of(int64_t first, int run) const {
    return unit_halves(run == 0 ? load(pairs + first) : unit_bits_right(load(pairs + first), 16));
  }
};

constexpr int64_t kCodeRows = 64;  // of q8_0, at most, that go together where codes enter as whole numbers

// The largest size of n numbers, whole vectors, at least 2^-100; no number where one of them is not finite.
inline float largest_of(const float* x, int64_t n) {
  vf top = set(0x1p-100f), all = zero();
  for (int64_t i = 0; i < n; i += kLanes) top = max(abs(load(x + i)), top), all = fma(load(x + i), zero(), all);
  return highest(top) + sum(all);
}

// Units of kKeysAbreast rows, a vector from each, turned: lanes are keys. And the scales of these units.
template <CacheFormat F>
struct TurnedUnits {
  alignas(64) float units[kLanes][kKeysAbreast];
  alignas(64) float scales[kUnitScales][kKeysAbreast];

  SENNIT_INLINE void read(const CachedRows& rows, int64_t first, int64_t vector, int64_t dim) {
    for (int g = 0; g < kKeyVectors; ++g) {
      const uint8_t* const heads = rows.first + (first + g * kLanes) * rows.bytes;
      vf square[kLanes];
#pragma GCC unroll 16
      for (int k = 0; k < kLanes; ++k) square[k] = load_units(heads + k * rows.bytes + 4 * kLanes * vector, rows.bytes);
      transpose(square);
#pragma GCC unroll 16
      for (int u = 0; u < kLanes; ++u) store(units[u] + g * kLanes, square[u]);
      if constexpr (F == CacheFormat::q8_0) {
        ScalePairs<> pairs;
        for (int k = 0; k < kLanes; ++k) pairs.read(k, heads + k * rows.bytes + dim + 2 * kUnitScales * vector);
        for (int run = 0; run < kUnitScales; ++run) store(scales[run] + g * kLanes, pairs.of(0, run));
      }
    }
  }
};

// out[r][width] += products of R queries with the numbers of turned units, in order.
template <CacheFormat F, int R>
[[gnu::noinline]] void dot_units(const float* q, int64_t q_stride, const TurnedUnits<F>& turned, float* out,
                                 int64_t width) {
  constexpr int kNumbers = kUnitNumbers<F>, kRun = kLanes / kUnitScales;
  vf sums[R][kKeyVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int g = 0; g < kKeyVectors; ++g) sums[r][g] = load(out + r * width + g * kLanes);
  for (int run = 0; run < kUnitScales; ++run) {
    UnitScale scales[kKeyVectors] = {};
#pragma GCC unroll 16
    for (int g = 0; g < kKeyVectors; ++g)
      if constexpr (F == CacheFormat::q8_0) scales[g] = unit_scale(load(turned.scales[run] + g * kLanes));
    for (int u = run * kRun; u < (run + 1) * kRun; ++u)
#pragma GCC unroll 4
      for (int part = 0; part < kNumbers; ++part)
#pragma GCC unroll 16
        for (int g = 0; g < kKeyVectors; ++g) {
          const vf x = unit_number<F>(load(turned.units[u] + g * kLanes), part, scales[g]);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) sums[r][g] = fma(set(q[r * q_stride + u * kNumbers + part]), x, sums[r][g]);
        }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int g = 0; g < kKeyVectors; ++g) store(out + r * width + g * kLanes, sums[r][g]);
}

// o[r][0 ...] += sum of w[r][j] times numbers of row j for begin <= j < end, in order: V vectors of units of R queries.
// Row 0 begins with the first of the numbers, `scales` bytes before the first of the scales.
template <CacheFormat F, int V, int R>
[[gnu::noinline]] void add_units(const float* w, int64_t w_stride, const CachedRows& rows, int64_t begin, int64_t end,
                                 int64_t scales, float* o, int64_t o_stride) {
  constexpr int kNumbers = kUnitNumbers<F>, kSums = V * kNumbers;
  const auto column = [](int s, int lane) { return s / kNumbers * kUnitsDim<F> + unit_place<F>(s % kNumbers, lane); };
  alignas(64) float lanes[R][kSums][kLanes];
  for (int r = 0; r < R; ++r)
    for (int s = 0; s < kSums; ++s)
      for (int i = 0; i < kLanes; ++i) lanes[r][s][i] = o[r * o_stride + column(s, i)];
  vf sums[R][kSums];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) sums[r][s] = load(lanes[r][s]);
  const uint8_t* row = rows.first + begin * rows.bytes;
  for (int64_t j = begin; j < end; ++j, row += rows.bytes)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      const vf units = load_units(row + 4 * kLanes * v, rows.bytes);
      UnitScale scale{};
      if constexpr (F == CacheFormat::q8_0) scale = unit_scale(lane_scales(row + scales + 2 * kUnitScales * v));
#pragma GCC unroll 4
      for (int part = 0; part < kNumbers; ++part) {
        const vf x = unit_vector<F>(row + 4 * kLanes * v, units, part, scale);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
          sums[r][v * kNumbers + part] = fma(set(w[r * w_stride + j]), x, sums[r][v * kNumbers + part]);
      }
    }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int s = 0; s < kSums; ++s) store(lanes[r][s], sums[r][s]);
  for (int r = 0; r < R; ++r)
    for (int s = 0; s < kSums; ++s)
      for (int i = 0; i < kLanes; ++i) o[r * o_stride + column(s, i)] = lanes[r][s][i];
}

// Some queries that share keys and values, from row 0 of each.
struct Queries {
  const float* x;  // queries, or their weights
  int64_t stride, count;
};

// What dot_cached gives, to the bit.
inline void dot_rows(const Queries& q, const CachedRows& rows, int64_t count, int64_t dim, float* out, int64_t width) {
  const int64_t whole = whole_units(rows.format, dim) ? count / kKeysAbreast * kKeysAbreast : 0;
  if (whole == 0) return dot_cached(q.x, q.stride, q.count, rows, count, dim, out, width);
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat F = decltype(format)::value;
        for (int64_t r = 0; r < q.count; ++r)
          for (int64_t j = 0; j < whole; j += kLanes) store(out + r * width + j, zero());
        for (int64_t j = 0; j < whole; j += kKeysAbreast)
          for (int64_t u = 0; u < dim; u += kUnitsDim<F>) {
            TurnedUnits<F> turned;
            turned.read(rows, j, u / kUnitsDim<F>, dim);
            int64_t r = 0;
            for (; r + kQueriesAbreast <= q.count; r += kQueriesAbreast)
              dot_units<F, kQueriesAbreast>(q.x + r * q.stride + u, q.stride, turned, out + r * width + j, width);
            for (; r < q.count; ++r)
              dot_units<F, 1>(q.x + r * q.stride + u, q.stride, turned, out + r * width + j, width);
          }
      });
  for (int64_t r = 0; r < q.count && whole < width; ++r)
    dot_cached(q.x + r * q.stride, q.stride, 1, rows.from(whole), count - whole, dim, out + r * width + whole,
               width - whole);
}

// The same of V vectors of units of R queries, from number u on.
template <CacheFormat F, int V, int R>
SENNIT_INLINE int64_t add_vectors(const Queries& w, int64_t r, const CachedRows& rows, int64_t begin, int64_t end,
                                  int64_t u, int64_t dim, float* o, int64_t o_stride) {
  for (; u + V * kUnitsDim<F> <= dim; u += V * kUnitsDim<F>)
    add_units<F, V, R>(w.x + r * w.stride, w.stride, {rows.first + u * cached_unit_bytes(F), rows.bytes, F}, begin, end,
                       dim - u + 2 * (u / kCachedRun), o + r * o_stride + u, o_stride);
  return u;
}

// What add_cached gives, to the bit, for queries that see the same rows.
inline void add_rows(const Queries& w, const CachedRows& rows, int64_t begin, int64_t end, int64_t dim, float* o,
                     int64_t o_stride) {
  if (!whole_units(rows.format, dim)) {
    for (int64_t r = 0; r < w.count; ++r) add_cached(w.x + r * w.stride, rows, begin, end, dim, o + r * o_stride);
    return;
  }
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat F = decltype(format)::value;
        constexpr int kTogether = kLanes > 8 ? 4 : 8, kNumbers = kUnitNumbers<F>;
        constexpr int kOne = kTogether / kNumbers, kSome = 4 / kNumbers;
        int64_t r = 0;
        for (; r + kQueriesAbreast <= w.count; r += kQueriesAbreast) {
          const int64_t u = add_vectors<F, kSome, kQueriesAbreast>(w, r, rows, begin, end, 0, dim, o, o_stride);
          add_vectors<F, 1, kQueriesAbreast>(w, r, rows, begin, end, u, dim, o, o_stride);
        }
        for (; r < w.count; ++r) {
          const int64_t u = add_vectors<F, kOne, 1>(w, r, rows, begin, end, 0, dim, o, o_stride);
          add_vectors<F, 1, 1>(w, r, rows, begin, end, u, dim, o, o_stride);
        }
      });
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
