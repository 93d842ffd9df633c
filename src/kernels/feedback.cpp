#include "kernels/feedback.h"

#include "kernels/small_products.h"
#include "kernels/tile.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

constexpr int64_t kColumns = 2 * kLanes;
constexpr int kRows = 6;                       // of a register tile
constexpr int kBeside = kLanes == 16 ? 2 : 1;  // panels of a tall one: what the registers hold

// R rows and V vectors of c from column j; the last vector has `lanes` lanes where it is not full.
template <int R, int V, bool kFull>
[[gnu::noinline]] void feed_tile(const FeedProduct& t, const float* a, float* c, int64_t j, int64_t lanes) {
  const auto columns = [](int v) __attribute__((always_inline)) {
    return static_cast<int64_t>(v) * kLanes;
  };
  const auto get = [=](const float* p) __attribute__((always_inline)) {
    return kFull ? load(p) : load_part(p, lanes);
  };
  vf sums[R][V];
  c += j;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) sums[r][v] = t.accumulate ? get(c + r * t.c_stride + columns(v)) : zero();
  const float* b = t.b + j / kColumns * t.b_panel + j % kColumns;
  const int64_t stride = t.a_stride, row = t.b_row, panel = t.b_panel;
  add_products(
      sums, t.k, [](vf x, vf y, vf s) __attribute__((always_inline)) { return fma(x, y, s); },
      [=](int64_t p, int r) __attribute__((always_inline)) { return set(a[r * stride + p]); },
      [=](int64_t p, int v)
          __attribute__((always_inline)) { return get(b + v / 2 * panel + v % 2 * kLanes + p * row); });
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      float* to = c + r * t.c_stride + columns(v);
      if constexpr (kFull)
        store(to, sums[r][v]);
      else
        store_part(to, sums[r][v], lanes);
    }
}

template <int R>
SENNIT_INLINE void feed_rows(const FeedProduct& t, const float* a, float* c, int64_t j, int64_t n) {
  constexpr int P = R == 1 ? 4 : R == 2 ? 2 : kBeside;  // panels side by side, as few sums would wait for each other
  for (; n >= P * kColumns; n -= P * kColumns, j += P * kColumns) feed_tile<R, 2 * P, true>(t, a, c, j, kLanes);
  if constexpr (P > 1)
    for (; n >= kColumns; n -= kColumns, j += kColumns) feed_tile<R, 2, true>(t, a, c, j, kLanes);
  for (; n >= kLanes; n -= kLanes, j += kLanes) feed_tile<R, 1, true>(t, a, c, j, kLanes);
  if (n > 0) feed_tile<R, 1, false>(t, a, c, j, n);
}

SENNIT_INLINE void feed_height(const FeedProduct& t, int64_t from, int64_t to, int64_t j, int64_t n) {
  const float* a = t.a + from * t.a_stride;
  float* c = t.c + from * t.c_stride;
  switch (to - from) {
    case 1:
      return feed_rows<1>(t, a, c, j, n);
    case 2:
      return feed_rows<2>(t, a, c, j, n);
    case 3:
      return feed_rows<3>(t, a, c, j, n);
    case 4:
      return feed_rows<4>(t, a, c, j, n);
    case 5:
      return feed_rows<5>(t, a, c, j, n);
    default:
      return feed_rows<kRows>(t, a, c, j, n);
  }
}

// Tiles of nearly equal height. The columns of a pass are read again for each of them: few, so that they stay near.
void multiply_fed(const FeedProduct& t) {
  const int64_t tiles = (t.m + kRows - 1) / kRows, pass = tiles > 1 ? kBeside * kColumns : t.n;
  for (int64_t j = 0; j < t.n; j += pass)
    for (int64_t i = 0; i < tiles; ++i)
      feed_height(t, t.m * i / tiles, t.m * (i + 1) / tiles, j, t.n - j < pass ? t.n - j : pass);
}

int64_t packed_floats(int64_t k, int64_t n) {
  return (n + kColumns - 1) / kColumns * kColumns * k;
}

void pack_columns(const float* b, int64_t stride, int64_t k, int64_t n, float* panels) {
  for (int64_t j = 0; j < n; j += kColumns, panels += kColumns * k) {
    const int64_t width = n - j < kColumns ? n - j : kColumns;
    for (int64_t p = 0; p < k; ++p) {
      float* to = panels + p * kColumns;
      if (width < kColumns) copy(nullptr, to, kColumns);
      copy(b + p * stride + j, to, width);
    }
  }
}

void pack_transposed(const float* b, int64_t stride, int64_t k, int64_t n, float* panels) {
  for (int64_t j = 0; j < n; j += kColumns, panels += kColumns * k) {
    const int64_t width = n - j < kColumns ? n - j : kColumns;
    if (width < kColumns) copy(nullptr, panels, kColumns * k);
    transpose(b + j * stride, stride, width, k, panels, kColumns);
  }
}

}  // namespace

const Feedback feedback_table = {.columns = kColumns,
                                 .packed_floats = packed_floats,
                                 .pack = pack_columns,
                                 .pack_transposed = pack_transposed,
                                 .multiply = multiply_fed};

}  // namespace sennit::kernels::SENNIT_LEVEL
