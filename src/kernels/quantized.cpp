#include "kernels/quantized.h"

#include "kernels/gemm.h"
#include "kernels/quantized_lanes.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int kGroups = 8;                  // of four columns in a block
constexpr int kStreams = kQuantizedPanels;  // of panels that a single row of x meets side by side

// The low halves of a group's codes, of 4 to 6 bits.
SENNIT_INLINE Codes low_halves(const uint8_t* block, int g) {
  const Codes both = load_codes(block + 64 * (g % 4));
  return g < 4 ? low_half(both) : high_half(both);
}
// What codes of 5 and 6 bits have above their low halves, at bit `to` of a byte and those after it.
template <int kBits>
SENNIT_INLINE Codes bits_above(const uint8_t* block, int g, int to) {
  constexpr int kAbove = kBits - 4, kLine = 8 / kAbove;  // groups whose bits share bytes
  return moved_bits(load_codes(block + 64 * (4 + g / kLine)), to - g % kLine * kAbove, ((1 << kAbove) - 1) << to);
}
template <int kBits>
SENNIT_INLINE Codes group_codes(const uint8_t* block, int g) {
  if constexpr (kBits == 8)
    return load_codes(block + 64 * g);
  else if constexpr (kBits == 4)
    return low_halves(block, g);
  else
    return joined(low_halves(block, g), bits_above<kBits>(block, g, 4));
}
// How often the codes of a block are read, and what is seen of them.
template <int kBits>
constexpr int kPasses = kHalves&& kBits > 4 ? 2 : 1;
template <int kBits>
SENNIT_INLINE Codes codes_of(const uint8_t* block, int g, int pass) {
  if constexpr (kPasses<kBits> == 1) {
    return group_codes<kBits>(block, g);
  } else if constexpr (kBits == 8) {
    const Codes codes = load_codes(block + 64 * g);
    return pass == 0 ? low_half(codes) : high_half(codes);
  } else {
    return pass == 0 ? low_halves(block, g) : bits_above<kBits>(block, g, 0);
  }
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

// Asks for a block before it is read, where some rows of x share a panel: few of them wait for memory alone. Blocks of
// 4 bits are done so soon that they are fetched from further ahead, past the first cache.
template <QuantizedLayout kLayout>
SENNIT_INLINE void ask_ahead(const uint8_t* block) {
  constexpr int64_t kBytes = kLayout.block_bytes(), kAhead = kLayout.bits == 4 ? 32 : 4;
  for (int64_t line = 0; line < kBytes; line += 64)
    __builtin_prefetch(block + kAhead * kBytes + line, 0, kLayout.bits == 4 ? 2 : 3);
}

// The sums of R rows of x from row i on with P panels, `apart` bytes from one to the next. For a single row these are
// streams that the processor foresees by itself: to ask for what it fetches anyway would hold it up.
template <QuantizedLayout kLayout, int R, int P>
SENNIT_INLINE void panel_rows(const QuantizedTask& t, const uint8_t* panel, int64_t apart, int64_t i,
                              float (*y)[kQuantizedRows]) {
  constexpr int64_t kBytes = kLayout.block_bytes();
  constexpr int kBits = kLayout.bits, kParts = kLayout.parts, kRun = kGroups / kParts;
  const auto zero = static_cast<float>(t.layout.zero);
  const int64_t blocks = t.blocks;
  Floats sums[R][P];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sums[r][p] = no_floats();
  const RoundedBlock* x = t.x + i * blocks;
  for (int64_t b = 0; b < blocks; ++b, ++x, panel += kBytes) {
    if constexpr (R > 1 || P == 1)
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) ask_ahead<kLayout>(panel + p * apart);
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part) {
      Sums whole[R][P];
#pragma GCC unroll 2
      for (int pass = 0; pass < kPasses<kBits>; ++pass) {
        Sums some[R][P];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
          for (int p = 0; p < P; ++p) some[r][p] = no_sums();
#pragma GCC unroll 8
        for (int g = part * kRun; g < (part + 1) * kRun; ++g) {
          Codes codes[P];
#pragma GCC unroll 8
          for (int p = 0; p < P; ++p) codes[p] = codes_of<kBits>(panel + p * apart, g, pass);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int p = 0; p < P; ++p) some[r][p] = add_group(some[r][p], codes[p], x[r * blocks].q + 4 * g);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
          for (int p = 0; p < P; ++p) {
            whole[r][p] = pass == 0 ? whole_of(some[r][p]) : add_high(whole[r][p], some[r][p]);
            if (kPasses<kBits> == 2 && R * P > 2) put_away(whole[r][p]);
          }
      }
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        const Steps steps = steps_of<kLayout>(panel + p * apart, part, zero);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
          sums[r][p] = add_part<kLayout>(x[r * blocks], part, t.layout.zero, sums[r][p], whole[r][p], steps);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) put(sums[r][p], y[r * P + p]);
}

// Of y, the R rows from row i on, 16 columns from column j on and as many every `apart` panels further.
template <QuantizedLayout kLayout, int R, int P>
[[gnu::noinline]] void panel_tile(const QuantizedTask& t, int64_t i, int64_t j, int64_t apart) {
  const int64_t panel_bytes = t.blocks * kLayout.block_bytes();
  float y[R * P][kQuantizedRows];
  panel_rows<kLayout, R, P>(t, t.panels + j / kQuantizedRows * panel_bytes, apart * panel_bytes, i, y);
  for (int p = 0; p < P; ++p, j += apart * kQuantizedRows) {
    const int64_t width = t.n - j < kQuantizedRows ? t.n - j : kQuantizedRows;
    for (int r = 0; r < R; ++r)
      for (int64_t c = 0; c < width; ++c)
        t.y[(i + r) * t.y_stride + j + c] = y[r * P + p][c] + (t.bias ? t.bias[j + c] : 0);
  }
}

// At most R rows of x, those that are left, by P neighbouring panels.
template <QuantizedLayout kLayout, int R, int P>
SENNIT_INLINE void tile_of_rows(const QuantizedTask& t, int64_t i, int64_t j) {
  if (t.m - i >= R) return panel_tile<kLayout, R, P>(t, i, j, 1);
  if constexpr (R > 1) tile_of_rows<kLayout, R - 1, P>(t, i, j);
}

// All rows of x by P panels at a time, while so many are left; what is left starts at the row of W that is returned.
template <QuantizedLayout kLayout, int P>
int64_t multiply_panels(const QuantizedTask& t, int64_t j) {
  for (; t.n - j > (P - 1) * kQuantizedRows; j += P * kQuantizedRows)
    for (int64_t i = 0; i < t.m; i += kTile) tile_of_rows<kLayout, kTile, P>(t, i, j);
  return j;
}

// A single row of x by as few and long streams as the panels allow; what is left starts at the row that is returned.
template <QuantizedLayout kLayout>
int64_t multiply_streams(const QuantizedTask& t) {
  const int64_t each = (t.n + kQuantizedRows - 1) / kQuantizedRows / kStreams;
  for (int64_t j = 0; j < each * kQuantizedRows; j += kQuantizedRows) panel_tile<kLayout, 1, kStreams>(t, 0, j, each);
  return kStreams * each * kQuantizedRows;
}

template <QuantizedLayout kLayout>
void multiply_all(const QuantizedTask& t) {
  const int64_t left = t.m == 1 ? multiply_streams<kLayout>(t) : t.m < kTile ? 0 : multiply_panels<kLayout, kPanels>(t, 0);
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
  if (layout.bits == 6) return body.template operator()<QuantizedLayout{6, 2, kSome}>();
  if (layout.bits == 5 && layout.minima()) return body.template operator()<QuantizedLayout{5, 1}>();
  if (layout.bits == 5) return body.template operator()<QuantizedLayout{5, 1, kSome}>();
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
  constexpr int kVectors = kQuantizedColumns / kLanes, kHalf = kVectors / 2;
  vf v[kVectors], largest = zero();
  for (int i = 0; i < kVectors; ++i) {
    const int64_t left = n - i * kLanes;
    v[i] = left >= kLanes ? load(x + i * kLanes) : left > 0 ? load_part(x + i * kLanes, left) : zero();
    largest = max(largest, abs(v[i]));
  }
  const float most = highest(largest);
  const vf by = set(most > 1e-30f ? 127 / most : 0);
  vf totals[2] = {zero(), zero()};
  for (int i = 0; i < kVectors; ++i) {
    v[i] = round(v[i] * by);
    store_rounded(block.q + i * kLanes, v[i]);
    totals[i / kHalf] = totals[i / kHalf] + v[i];
  }
  for (int half = 0; half < 2; ++half) block.sums[half] = static_cast<int32_t>(sum(totals[half]));
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
