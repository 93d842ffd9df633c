#include "kernels/quantized.h"

#include "kernels/gemm.h"
#include "kernels/halves.h"
#include "kernels/pairs.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kGroups = 8;  // of four columns in a block

#if defined(SENNIT_LEVEL_avx512)

// Sixteen sums, one for each row of a panel, and as floats.
struct Sums {
  __m512i v;
};
struct Floats {
  __m512 v;
};
struct Codes {
  __m512i v;
};
SENNIT_INLINE Sums no_sums() {
  return {_mm512_setzero_si512()};
}
SENNIT_INLINE Floats no_floats() {
  return {_mm512_setzero_ps()};
}
SENNIT_INLINE Codes load_codes(const uint8_t* p) {
  return {_mm512_loadu_si512(p)};
}
SENNIT_INLINE Codes low_half(Codes c) {
  return {_mm512_and_si512(c.v, _mm512_set1_epi8(15))};
}
SENNIT_INLINE Codes high_half(Codes c) {
  return {_mm512_and_si512(_mm512_srli_epi16(c.v, 4), _mm512_set1_epi8(15))};
}
// Adds four products a row.
SENNIT_INLINE Sums add_group(Sums s, Codes c, const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  return {_mm512_dpbusd_epi32(s.v, c.v, _mm512_set1_epi32(four))};
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
SENNIT_INLINE Sums less(Sums s, int32_t n) {
  return {_mm512_sub_epi32(s.v, _mm512_set1_epi32(n))};
}
SENNIT_INLINE Floats to_floats(Sums s) {
  return {_mm512_cvtepi32_ps(s.v)};
}
SENNIT_INLINE Floats times(Floats a, float b) {
  return {_mm512_mul_ps(a.v, _mm512_set1_ps(b))};
}
SENNIT_INLINE Floats add_product(Floats s, Floats a, Floats b) {
  return {_mm512_fmadd_ps(a.v, b.v, s.v)};
}
SENNIT_INLINE Floats subtract_product(Floats s, Floats a, float b) {
  return {_mm512_fnmadd_ps(a.v, _mm512_set1_ps(b), s.v)};
}
SENNIT_INLINE void put(Floats s, float* y) {
  _mm512_storeu_ps(y, s.v);
}
// The codes of one of four columns.
SENNIT_INLINE Floats column(Codes c, int j) {
  const __m512i code = _mm512_srl_epi32(c.v, _mm_cvtsi32_si128(8 * j));
  return {_mm512_cvtepi32_ps(_mm512_and_si512(code, _mm512_set1_epi32(255)))};
}
SENNIT_INLINE Floats decoded(Floats q, Floats scale, Floats minimum) {
  return {_mm512_sub_ps(_mm512_mul_ps(scale.v, q.v), minimum.v)};
}
SENNIT_INLINE void put_pairs(Floats even, Floats odd, float* units) {
  store(units, pair({even.v}, {odd.v}));
}
constexpr int kTile = 6, kPanels = 2;  // rows of x and panels of W at a time

#elif defined(SENNIT_LEVEL_avx2)

// Rows 0-7 and 8-15: of pairs of columns, in 16 bits, where those of a whole block fit if codes have 4 bits (8 * 2 * 15
// * 127 < 2^15), and then in 32. Codes of 8 bits are read as their low and their high half in two passes.
struct Sums {
  __m256i v[2];
};
struct Floats {
  __m256 v[2];
};
struct Codes {
  __m256i v[2];
};
SENNIT_INLINE Sums no_sums() {
  const __m256i z = _mm256_setzero_si256();
  return {{z, z}};
}
SENNIT_INLINE Floats no_floats() {
  return {{_mm256_setzero_ps(), _mm256_setzero_ps()}};
}
SENNIT_INLINE Codes load_codes(const uint8_t* p) {
  return {{_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))}};
}
SENNIT_INLINE Codes low_half(Codes c) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {{_mm256_and_si256(c.v[0], mask), _mm256_and_si256(c.v[1], mask)}};
}
SENNIT_INLINE Codes high_half(Codes c) {
  return low_half({{_mm256_srli_epi16(c.v[0], 4), _mm256_srli_epi16(c.v[1], 4)}});
}
// Ends an addition here: g++ would else gather the products of a whole tile first, and registers are too few for that.
SENNIT_INLINE void settle(__m256i& sum) {
  asm volatile("" : "+x"(sum));
}
SENNIT_INLINE Sums add_group(Sums s, Codes c, const int8_t* x) {
  int four;
  __builtin_memcpy(&four, x, 4);
  for (int h = 0; h < 2; ++h) {
    s.v[h] = _mm256_add_epi16(s.v[h], _mm256_maddubs_epi16(c.v[h], _mm256_set1_epi32(four)));
    settle(s.v[h]);
  }
  return s;
}
SENNIT_INLINE Sums whole_of(Sums low) {
  for (__m256i& v : low.v) v = _mm256_madd_epi16(v, _mm256_set1_epi16(1));
  return low;
}
SENNIT_INLINE Sums add_high(Sums whole, Sums high) {
  for (int h = 0; h < 2; ++h)
    whole.v[h] = _mm256_add_epi32(whole.v[h], _mm256_madd_epi16(high.v[h], _mm256_set1_epi16(16)));
  return whole;
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  return {{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
           _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))}};
}
SENNIT_INLINE Sums less(Sums s, int32_t n) {
  return {{_mm256_sub_epi32(s.v[0], _mm256_set1_epi32(n)), _mm256_sub_epi32(s.v[1], _mm256_set1_epi32(n))}};
}
SENNIT_INLINE Floats to_floats(Sums s) {
  return {{_mm256_cvtepi32_ps(s.v[0]), _mm256_cvtepi32_ps(s.v[1])}};
}
SENNIT_INLINE Floats times(Floats a, float b) {
  return {{_mm256_mul_ps(a.v[0], _mm256_set1_ps(b)), _mm256_mul_ps(a.v[1], _mm256_set1_ps(b))}};
}
SENNIT_INLINE Floats add_product(Floats s, Floats a, Floats b) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], s.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], s.v[1])}};
}
SENNIT_INLINE Floats subtract_product(Floats s, Floats a, float b) {
  return {{_mm256_fnmadd_ps(a.v[0], _mm256_set1_ps(b), s.v[0]), _mm256_fnmadd_ps(a.v[1], _mm256_set1_ps(b), s.v[1])}};
}
SENNIT_INLINE void put(Floats s, float* y) {
  _mm256_storeu_ps(y, s.v[0]);
  _mm256_storeu_ps(y + 8, s.v[1]);
}
SENNIT_INLINE Floats column(Codes c, int j) {
  Floats f;
  for (int h = 0; h < 2; ++h) {
    const __m256i code = _mm256_srl_epi32(c.v[h], _mm_cvtsi32_si128(8 * j));
    f.v[h] = _mm256_cvtepi32_ps(_mm256_and_si256(code, _mm256_set1_epi32(255)));
  }
  return f;
}
SENNIT_INLINE Floats decoded(Floats q, Floats scale, Floats minimum) {
  for (int h = 0; h < 2; ++h) q.v[h] = _mm256_sub_ps(_mm256_mul_ps(scale.v[h], q.v[h]), minimum.v[h]);
  return q;
}
SENNIT_INLINE void put_pairs(Floats even, Floats odd, float* units) {
  for (int h = 0; h < 2; ++h) store(units + 8 * h, pair({even.v[h]}, {odd.v[h]}));
}
// The registers are for the sums of the next pass: g++ would rather move those.
SENNIT_INLINE void put_away(Sums& whole) {
  asm volatile("" : "+m"(whole));
}
constexpr int kTile = 6, kPanels = 1;  // rows of x and panels of W at a time
constexpr bool kHalves = true;

#else

struct Sums {
  int32_t v[kQuantizedRows];
};
struct Floats {
  float v[kQuantizedRows];
};
struct Codes {
  uint8_t v[4 * kQuantizedRows];
};
SENNIT_INLINE Sums no_sums() {
  return {};
}
SENNIT_INLINE Floats no_floats() {
  return {};
}
SENNIT_INLINE Codes load_codes(const uint8_t* p) {
  Codes c;
  __builtin_memcpy(c.v, p, sizeof c.v);
  return c;
}
SENNIT_INLINE Codes low_half(Codes c) {
  for (uint8_t& b : c.v) b &= 15;
  return c;
}
SENNIT_INLINE Codes high_half(Codes c) {
  for (uint8_t& b : c.v) b = static_cast<uint8_t>(b >> 4);
  return c;
}
SENNIT_INLINE Sums add_group(Sums s, const Codes& c, const int8_t* x) {
  for (int r = 0; r < kQuantizedRows; ++r)
    for (int j = 0; j < 4; ++j) s.v[r] += c.v[4 * r + j] * x[j];
  return s;
}
SENNIT_INLINE Floats load_halves(const uint8_t* p) {
  Floats f;
  for (int r = 0; r < kQuantizedRows; ++r) {
    uint16_t h;
    __builtin_memcpy(&h, p + 2 * r, 2);
    f.v[r] = from_half(h);
  }
  return f;
}
SENNIT_INLINE Sums less(Sums s, int32_t n) {
  for (int32_t& v : s.v) v -= n;
  return s;
}
SENNIT_INLINE Floats to_floats(const Sums& s) {
  Floats f;
  for (int r = 0; r < kQuantizedRows; ++r) f.v[r] = static_cast<float>(s.v[r]);
  return f;
}
SENNIT_INLINE Floats times(Floats a, float b) {
  for (float& x : a.v) x *= b;
  return a;
}
SENNIT_INLINE Floats add_product(Floats s, const Floats& a, const Floats& b) {
  for (int r = 0; r < kQuantizedRows; ++r) s.v[r] = __builtin_fmaf(a.v[r], b.v[r], s.v[r]);
  return s;
}
SENNIT_INLINE Floats subtract_product(Floats s, const Floats& a, float b) {
  for (int r = 0; r < kQuantizedRows; ++r) s.v[r] = __builtin_fmaf(-a.v[r], b, s.v[r]);
  return s;
}
SENNIT_INLINE void put(const Floats& s, float* y) {
  __builtin_memcpy(y, s.v, sizeof s.v);
}
SENNIT_INLINE Floats column(const Codes& c, int j) {
  Floats f;
  for (int r = 0; r < kQuantizedRows; ++r) f.v[r] = c.v[4 * r + j];
  return f;
}
SENNIT_INLINE Floats decoded(Floats q, const Floats& scale, const Floats& minimum) {
  for (int r = 0; r < kQuantizedRows; ++r) q.v[r] = scale.v[r] * q.v[r] - minimum.v[r];
  return q;
}
SENNIT_INLINE void put_pairs(const Floats& even, const Floats& odd, float* units) {
  for (int r = 0; r < kQuantizedRows; ++r) store(units + r, pair({even.v[r]}, {odd.v[r]}));
}
constexpr int kTile = 1, kPanels = 1;

#endif

#if !defined(SENNIT_LEVEL_avx2)  // the sums are whole as they are
constexpr bool kHalves = false;
SENNIT_INLINE Sums whole_of(const Sums& s) {
  return s;
}
SENNIT_INLINE Sums add_high(const Sums& whole, const Sums&) {
  return whole;
}
SENNIT_INLINE void put_away(Sums&) {}
#endif

template <int kBits>
SENNIT_INLINE Codes group_codes(const uint8_t* block, int g) {
  if constexpr (kBits == 8) return load_codes(block + 64 * g);
  const Codes both = load_codes(block + 64 * (g % 4));
  return g < 4 ? low_half(both) : high_half(both);
}
// How often the codes of a block are read, and what is seen of them.
template <int kBits>
constexpr int kPasses = kHalves&& kBits == 8 ? 2 : 1;
template <int kBits>
SENNIT_INLINE Codes codes_of(const uint8_t* block, int g, int pass) {
  const Codes codes = group_codes<kBits>(block, g);
  if constexpr (kPasses<kBits> == 1) return codes;
  return pass == 0 ? low_half(codes) : high_half(codes);
}

// What a part of a block multiplies its codes by, and what it then takes away.
struct Steps {
  Floats scale, minimum;
};
template <QuantizedLayout kLayout>
SENNIT_INLINE Steps steps_of(const uint8_t* block, int part, float zero) {
  const uint8_t* scales = block + 64 * kLayout.bits;
  const Floats scale = load_halves(scales + 32 * part);
  if constexpr (!kLayout.minima()) return {scale, times(scale, zero)};
  return {scale, load_halves(scales + 32 * (kLayout.parts + part))};
}

// Adds to `sums` what the whole-number sums of one part of a block amount to.
template <QuantizedLayout kLayout>
SENNIT_INLINE Floats add_part(const RoundedBlock& x, int part, int zero, Floats sums, Sums whole, const Steps& steps) {
  const int32_t total = kLayout.parts == 2 ? x.sums[part] : x.sums[0] + x.sums[1];
  if constexpr (!kLayout.minima()) whole = less(whole, zero * total);
  sums = add_product(sums, to_floats(whole), times(steps.scale, x.scale));
  return kLayout.minima() ? subtract_product(sums, steps.minimum, x.scale * static_cast<float>(total)) : sums;
}

// Asks for a block before it is read: few rows of x wait for memory alone. Blocks of 4 bits are done so soon that they
// are fetched from further ahead, past the first cache.
template <QuantizedLayout kLayout>
SENNIT_INLINE void ask_ahead(const uint8_t* block) {
  constexpr int64_t kBytes = kLayout.block_bytes(), kAhead = kLayout.bits == 4 ? 32 : 4;
  for (int64_t line = 0; line < kBytes; line += 64)
    __builtin_prefetch(block + kAhead * kBytes + line, 0, kLayout.bits == 4 ? 2 : 3);
}

// The sums of P panels, a panel's bytes apart, with R rows of x that start at row i.
template <QuantizedLayout kLayout, int R, int P>
SENNIT_INLINE void panel_rows(const QuantizedTask& t, const uint8_t* panels, int64_t i,
                              float (*y)[P * kQuantizedRows]) {
  constexpr int64_t kBytes = kLayout.block_bytes();
  constexpr int kBits = kLayout.bits, kParts = kLayout.parts;
  constexpr int kRun = kGroups / kParts;
  const auto zero = static_cast<float>(t.layout.zero);
  const int64_t apart = t.blocks * kBytes;
  Floats sums[R][P];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) sums[r][p] = no_floats();
  const RoundedBlock* x = t.x + i * t.blocks;
  for (int64_t b = 0; b < t.blocks; ++b, ++x, panels += kBytes) {
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) ask_ahead<kLayout>(panels + p * apart);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Sums whole[R][P];
#pragma GCC unroll 2
      for (int pass = 0; pass < kPasses<kBits>; ++pass) {
        Sums some[R][P];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
          for (int p = 0; p < P; ++p) some[r][p] = no_sums();
#pragma GCC unroll 8
        for (int g = part * kRun; g < (part + 1) * kRun; ++g) {
          Codes codes[P];
#pragma GCC unroll 2
          for (int p = 0; p < P; ++p) codes[p] = codes_of<kBits>(panels + p * apart, g, pass);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
            for (int p = 0; p < P; ++p) some[r][p] = add_group(some[r][p], codes[p], x[r * t.blocks].q + 4 * g);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
          for (int p = 0; p < P; ++p) {
            whole[r][p] = pass == 0 ? whole_of(some[r][p]) : add_high(whole[r][p], some[r][p]);
            if (kPasses<kBits> == 2 && R > 2) put_away(whole[r][p]);
          }
      }
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) {
        const Steps steps = steps_of<kLayout>(panels + p * apart, part, zero);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          sums[r][p] = add_part<kLayout>(x[r * t.blocks], part, t.layout.zero, sums[r][p], whole[r][p], steps);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) put(sums[r][p], y[r] + p * kQuantizedRows);
}

template <QuantizedLayout kLayout, int R, int P>
[[gnu::noinline]] void panel_tile(const QuantizedTask& t, const uint8_t* panels, int64_t i, int64_t j) {
  constexpr int64_t kWidth = P * kQuantizedRows;
  float y[R][kWidth];
  panel_rows<kLayout, R, P>(t, panels, i, y);
  const int64_t width = t.n - j < kWidth ? t.n - j : kWidth;
  for (int r = 0; r < R; ++r)
    for (int64_t c = 0; c < width; ++c) t.y[(i + r) * t.y_stride + j + c] = y[r][c] + (t.bias ? t.bias[j + c] : 0);
}

// At most R rows of x, those that are left.
template <QuantizedLayout kLayout, int R, int P>
SENNIT_INLINE void tile_of_rows(const QuantizedTask& t, const uint8_t* panels, int64_t i, int64_t j) {
  if (t.m - i >= R) return panel_tile<kLayout, R, P>(t, panels, i, j);
  if constexpr (R > 1) tile_of_rows<kLayout, R - 1, P>(t, panels, i, j);
}

// All rows of x by P panels at a time, while so many are left; what is left starts at the row of W that is returned.
template <QuantizedLayout kLayout, int P>
int64_t multiply_panels(const QuantizedTask& t, int64_t j) {
  constexpr int64_t kBytes = kLayout.block_bytes();
  for (; t.n - j > (P - 1) * kQuantizedRows; j += P * kQuantizedRows) {
    const uint8_t* panels = t.panels + j / kQuantizedRows * t.blocks * kBytes;
    for (int64_t i = 0; i < t.m; i += kTile) tile_of_rows<kLayout, kTile, P>(t, panels, i, j);
  }
  return j;
}

template <QuantizedLayout kLayout>
void multiply_all(const QuantizedTask& t) {
  const int64_t left = t.m < kTile ? 0 : multiply_panels<kLayout, kPanels>(t, 0);
  multiply_panels<kLayout, 1>(t, left);
}

// One panel of W as 16 of the 32 columns of a panel of pairs.
template <QuantizedLayout kLayout>
void unpack_panel(const uint8_t* block, int64_t blocks, float zero, float* units) {
  for (int64_t b = 0; b < blocks; ++b, block += kLayout.block_bytes())
    for (int g = 0; g < kGroups; ++g) {
      const Steps steps = steps_of<kLayout>(block, g * kLayout.parts / kGroups, zero);
      const Codes codes = group_codes<kLayout.bits>(block, g);
      const auto at = [&](int j) { return decoded(column(codes, j), steps.scale, steps.minimum); };
      for (int j = 0; j < 4; j += 2, units += kPanelColumns) put_pairs(at(j), at(j + 1), units);
    }
}

// Calls body.template operator()<layout>() with the layout's bits, parts and whether it stores minima.
template <class Body>
void with_layout(QuantizedLayout layout, const Body& body) {
  constexpr int kSome = 1;
  if (layout.bits == 4 && layout.minima()) return body.template operator()<QuantizedLayout{4, 1}>();
  if (layout.bits == 4) return body.template operator()<QuantizedLayout{4, 1, kSome}>();
  if (layout.parts == 2) return body.template operator()<QuantizedLayout{8, 2, kSome}>();
  if (layout.minima()) return body.template operator()<QuantizedLayout{8, 1}>();
  body.template operator()<QuantizedLayout{8, 1, kSome}>();
}

void multiply(const QuantizedTask& t) {
  with_layout(t.layout, [&]<QuantizedLayout kLayout>() { multiply_all<kLayout>(t); });
}

void unpack(QuantizedLayout layout, const uint8_t* panel, int64_t blocks, float* units) {
  const auto zero = static_cast<float>(layout.zero);
  with_layout(layout, [&]<QuantizedLayout kLayout>() { unpack_panel<kLayout>(panel, blocks, zero, units); });
}

void round_block(const float* x, int64_t n, RoundedBlock& block) {
  float whole[kQuantizedColumns];
  vf largest = zero();
  for (int64_t i = 0; i < kQuantizedColumns; i += kLanes) {
    const vf v = n - i >= kLanes ? load(x + i) : n > i ? load_part(x + i, n - i) : zero();
    store(whole + i, v);
    largest = max(largest, abs(v));
  }
  const float most = highest(largest);
  const vf by = set(most > 1e-30f ? 127 / most : 0);
  for (int half = 0; half < 2; ++half) {
    vf total = zero();
    for (int64_t i = 16 * half; i < 16 * (half + 1); i += kLanes) {
      const vf v = round(load(whole + i) * by);
      store(whole + i, v);
      total = total + v;
    }
    block.sums[half] = static_cast<int32_t>(sum(total));
  }
  for (int64_t i = 0; i < kQuantizedColumns; ++i) block.q[i] = static_cast<int8_t>(whole[i]);
  block.scale = most > 1e-30f ? most / 127 : 0;
}

void round_row(const float* x, int64_t k, RoundedBlock* rounded) {
  for (int64_t at = 0; at < k; at += kQuantizedColumns, ++rounded) {
    const int64_t left = k - at;
    round_block(x + at, left < kQuantizedColumns ? left : kQuantizedColumns, *rounded);
  }
}

}  // namespace

const Quantized quantized_table = {.round_row = round_row, .multiply = multiply, .unpack = unpack};

}  // namespace sennit::kernels::SENNIT_LEVEL
