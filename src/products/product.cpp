#include "products/product.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "products/panel_kernels.h"
#include "tensor/scratch.h"

namespace sennit {
namespace {

using kernels::kPanelColumns;
using kernels::PanelKernels;

constexpr int64_t kSliceUnits = 1024,
                  kGroupPanels = 8;  // of panels that are made: their length, a thread's number of them
constexpr int64_t kRowsAcross = 32,  // of k that panels side by side are packed from at a time, where they lie across
    kPanelsAcross = 16;              // and how many panels
constexpr int64_t kLeastBand = 128;  // rows

// 32-bit units along k of a packed panel.
int64_t depth_of(int64_t k, Precision precision) {
  constexpr int64_t kMultiple = kernels::kPairedMultiple;
  return precision == Precision::f32 ? k : (k + kMultiple - 1) / kMultiple * kMultiple / 2;
}

using PackPanel = void (*)(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel);

// Packs the rows of x, each as long as k, in panels of `width`; the last panel has the rows that are left, or with
// `padded` room for as many as the others. Where x is transposed, panels side by side share lines of memory.
void pack(PackPanel pack_panel, Precision precision, const MatrixView& x, int64_t width, bool padded, float* out) {
  const int64_t k = x.cols, panels = panels_in(x.rows, width), depth = depth_of(k, precision);
  const int64_t slice = x.transposed ? kRowsAcross : std::max<int64_t>(1, k);
  const int64_t together = x.transposed ? std::min(kPanelsAcross, panels_in(panels, thread_count())) : 1;
  const int64_t grain = std::max(together, kThreadWork / 8 / std::max<int64_t>(1, width * k));
  const auto pack_part = [=](int64_t p, int64_t from) {
    const int64_t first = p * width, rows = std::min(width, x.rows - first);
    const float* begin = x.data + (x.transposed ? first + from * x.stride : first * x.stride + from);
    pack_panel(begin, x.stride, x.transposed, rows, std::min(slice, k - from),
               out + first * depth + depth_of(from, precision) * (padded ? width : rows));
  };
  parallel_for(panels, grain, [=](int64_t begin, int64_t end) {
    for (int64_t from = 0; from == 0 || from < k; from += slice)
      for (int64_t p = begin; p < end; ++p) pack_part(p, from);
  });
}

// Into how many bands of rows c is cut, so that a thread reads the least of a and of b: each band has its own threads,
// which share its columns. Of two numbers as good, the larger: a thread has packed rows of its band itself, and what
// lies in another core's cache is far.
int64_t bands_of(int64_t m, int64_t n) {
  const int64_t threads = thread_count(), most = std::clamp<int64_t>(m / kLeastBand, 1, threads);
  const auto read = [&](int64_t bands) { return m * threads / bands + n * bands; };
  int64_t best = 1;
  for (int64_t bands = 2; bands <= most; ++bands)
    if (read(bands) <= read(best)) best = bands;
  return best;
}

// c is cut into tiles of whole panels, small enough that each thread gets several.
struct TileGrid {
  int64_t rows, columns;  // of a tile
  int64_t row_tiles, column_tiles;
  int64_t band;  // tiles below each other that are a band's

  TileGrid(int64_t m, int64_t n, int64_t panel_rows, int64_t most_columns) {
    int64_t row_panels = std::min<int64_t>(panels_in(m, panel_rows), std::max<int64_t>(1, 224 / panel_rows));
    int64_t column_panels = std::min<int64_t>(panels_in(n, kPanelColumns), most_columns / kPanelColumns);
    const auto tiles = [&] {
      return panels_in(m, row_panels * panel_rows) * panels_in(n, column_panels * kPanelColumns);
    };
    while (tiles() < 4 * thread_count() && (column_panels > 4 || row_panels > 4)) {
      if (column_panels > row_panels)
        column_panels = (column_panels + 1) / 2;
      else
        row_panels = (row_panels + 1) / 2;
    }
    row_tiles = panels_in(m, row_panels * panel_rows);
    column_tiles = panels_in(n, column_panels * kPanelColumns);
    rows = panels_in(panels_in(m, panel_rows), row_tiles) * panel_rows;
    columns = panels_in(panels_in(n, kPanelColumns), column_tiles) * kPanelColumns;
    row_tiles = panels_in(m, rows);
    column_tiles = panels_in(n, columns);
    band = panels_in(row_tiles, bands_of(m, n));
  }

  struct Place {
    int64_t i, j;  // first row and column
  };
  // Of tile t: bands one after another, in each the tiles below each other first.
  Place place(int64_t t) const {
    const int64_t first = t / (band * column_tiles) * band, height = std::min(band, row_tiles - first),
                  inside = t - first * column_tiles;
    return {(first + inside % height) * rows, inside / height * columns};
  }
};

// The packed a by panels of b that each thread makes for itself, as many as stay in its second cache: they meet all
// rows there before the next are made.
template <class Make>
void multiply_slice(const PanelKernels& kernel, const kernels::PanelProduct& whole, const Make& make) {
  const int64_t panels = panels_in(whole.n, kPanelColumns), wanted = 2 * thread_count();
  const int64_t blocks = std::max<int64_t>(1, panels_in(whole.m, kernel.block_rows));
  int64_t parts = bands_of(whole.m, whole.n);
  int64_t group = std::min<int64_t>(panels, kGroupPanels);
  while (group > 1 && parts * panels_in(panels, group) < wanted) group = (group + 1) / 2;
  const int64_t groups = panels_in(panels, group);
  parts = std::clamp<int64_t>(panels_in(wanted, groups), parts, std::max(parts, blocks));
  const int64_t rows = panels_in(panels_in(whole.m, whole.a_rows), parts) * whole.a_rows,
                block = std::max<int64_t>(1, kernel.block_rows / whole.a_rows) * whole.a_rows;
  const int64_t work = whole.m * whole.n * whole.depth;
  const auto multiply_item = [&](int64_t item, float* made) {
    const int64_t first = item % groups * group, count = std::min(group, panels - first);
    for (int64_t p = 0; p < count; ++p) make(first + p, made + p * kPanelColumns * whole.depth);
    kernels::PanelProduct tile = whole;
    tile.b = made;
    tile.n = std::min(whole.n - first * kPanelColumns, count * kPanelColumns);
    if (whole.bias) tile.bias += first * kPanelColumns;
    const int64_t top = item / groups * rows, bottom = std::min(whole.m, top + rows);
    for (int64_t i = top; i < bottom; i += block) {
      tile.a = whole.a + i * whole.depth;
      tile.m = std::min(block, bottom - i);
      tile.next_a = i + block < bottom ? tile.a + block * whole.depth : nullptr;
      tile.c = whole.c + i * whole.c_stride + first * kPanelColumns;
      kernel.multiply(tile);
    }
    kernel.done();
  };
  each_with_scratch(groups * parts, group * kPanelColumns * whole.depth, multiply_item, 1 + work / kThreadWork);
}

MatrixView part_of(const MatrixView& x, int64_t row, int64_t rows, int64_t column, int64_t cols) {
  return {x.data + (x.transposed ? column * x.stride + row : row * x.stride + column), rows, cols, x.stride,
          x.transposed};
}

// The rows of a, packed a part at a time, by panels of b that start at column 0 of c.
void multiply_rows(const PanelKernels& kernel, Precision precision, const MatrixView& a,
                   kernels::PanelProduct product) {
  const int64_t height = kernel.panel_rows(a.rows);
  const int64_t part = std::max<int64_t>(1, kScratchUnits / std::max<int64_t>(1, height * product.depth)) * height;
  Tensor scratch({std::min(a.rows, part) * product.depth});
  product.a_rows = height;
  float* c = product.c;
  for (int64_t i = 0; i < a.rows; i += part) {
    product.m = std::min(part, a.rows - i);
    pack(kernel.pack_a, precision, part_of(a, i, product.m, 0, a.cols), height, false, scratch.data());
    product.a = scratch.data();
    product.c = c + i * product.c_stride;
    multiply_panels(kernel, product);
  }
}

const PanelKernels& chosen(const kernels::TileKernels& all) {
  const AmxTiles tiles = amx_tiles();
  return tiles == AmxTiles::timed ? *all.timed : tiles == AmxTiles::wide ? *all.wide : *all.narrow;
}

void check_view(const MatrixView& x, const char* name) {
  SENNIT_CHECK(x.rows >= 0 && x.cols >= 0, "{} is [{}, {}]", name, x.rows, x.cols);
  const int64_t run = x.transposed ? x.rows : x.cols;
  SENNIT_CHECK(x.stride >= run || x.rows * x.cols == 0, "{}: stride {} below {}", name, x.stride, run);
}

void check_product(const MatrixView& a, int64_t b_rows, int64_t b_cols, int64_t c_stride) {
  check_view(a, "a");
  SENNIT_CHECK(a.cols == b_rows, "a is [{}, {}], b is [{}, {}]", a.rows, a.cols, b_rows, b_cols);
  SENNIT_CHECK(c_stride >= b_cols || a.rows <= 1, "c: stride {} below {}", c_stride, b_cols);
}

}  // namespace

const PanelKernels& panel_kernels(Precision precision) {
  const kernels::Gemm& gemm = kernels::gemm();
  return precision == Precision::f32 ? *gemm.f32 : chosen(gemm.bf16);
}

const PanelKernels& int8_panel_kernels() {
  return chosen(kernels::gemm().int8);
}

void multiply_panels(const PanelKernels& kernel, const kernels::PanelProduct& whole) {
  const TileGrid grid(whole.m, whole.n, whole.a_rows, kernel.tile_columns);
  const int64_t work = std::max<int64_t>(1, grid.rows * grid.columns * whole.depth);
  const auto multiply_tile = kernel.multiply;
  const auto done = kernel.done;
  parallel_for(grid.row_tiles * grid.column_tiles, (kThreadWork + work - 1) / work, [=](int64_t begin, int64_t end) {
    const int64_t run = grid.row_tiles == 1 ? end - begin : 1;  // tiles side by side are one
    for (int64_t t = begin; t < end; t += run) {
      const auto [i, j] = grid.place(t);
      kernels::PanelProduct tile = whole;
      tile.a += i * whole.depth;
      tile.b += j * whole.depth;
      tile.m = std::min(grid.rows, whole.m - i);
      tile.n = std::min(run * grid.columns, whole.n - j);
      tile.c += i * whole.c_stride + j;
      if (whole.bias) tile.bias += j;
      if (whole.a_scale) tile.a_scale += i, tile.b_scale += j, tile.b_sums += j;
      multiply_tile(tile);
    }
    done();
  });
}

PackedMatrix::PackedMatrix(MatrixView b, Precision precision) : rows_(b.rows), cols_(b.cols), precision_(precision) {
  check_view(b, "b");
  const int64_t depth = depth_of(b.rows, precision), panels = panels_in(b.cols, kPanelColumns);
  panels_ = precision == Precision::f32 ? Tensor({panels, depth, kPanelColumns})
                                        : Tensor({panels, depth, kPanelColumns, 2}, DType::bf16);
  pack(panel_kernels(precision).pack_b, precision, {b.data, b.cols, b.rows, b.stride, !b.transposed}, kPanelColumns,
       true, reinterpret_cast<float*>(panels_.raw()));
}

void multiply(MatrixView a, const PackedMatrix& b, float* c, int64_t c_stride, bool accumulate, const float* bias) {
  check_product(a, b.rows(), b.cols(), c_stride);
  if (a.rows == 0 || b.cols() == 0) return;
  const PanelKernels& kernel = panel_kernels(b.precision());
  multiply_rows(kernel, b.precision(), a,
                {.a = nullptr,
                 .b = b.panels(),
                 .m = a.rows,
                 .n = b.cols(),
                 .a_rows = 0,
                 .depth = depth_of(a.cols, b.precision()),
                 .c = c,
                 .c_stride = c_stride,
                 .accumulate = accumulate,
                 .bias = bias});
}

void multiply(MatrixView a, MatrixView b, float* c, int64_t c_stride, const ProductOptions& options) {
  check_view(b, "b");
  check_product(a, b.rows, b.cols, c_stride);
  const auto pack_b = panel_kernels(options.precision).pack_b;
  const MatrixView columns{b.data, b.cols, b.rows, b.stride, !b.transposed};
  multiply_made(a, b.cols, c, c_stride, options, [&](int64_t p, int64_t from, int64_t k, float* units) {
    const int64_t first = p * kPanelColumns, width = std::min(kPanelColumns, columns.rows - first);
    const MatrixView part = part_of(columns, first, width, from, k);
    pack_b(part.data, part.stride, part.transposed, width, k, units);
  });
}

void multiply_made(MatrixView a, int64_t n, float* c, int64_t c_stride, const ProductOptions& options,
                   const MakePanel& make) {
  check_product(a, a.cols, n, c_stride);
  const PanelKernels& kernel = panel_kernels(options.precision);
  const int64_t height = kernel.panel_rows(a.rows),
                part = std::max<int64_t>(1, kScratchUnits / kSliceUnits / height) * height,
                slice = kSliceUnits * (options.precision == Precision::f32 ? 1 : 2);
  Tensor scratch({std::min(a.rows, part) * std::min(depth_of(a.cols, options.precision), kSliceUnits)});
  for (int64_t i = 0; i < a.rows && n > 0; i += part) {
    int64_t from = 0;
    do {
      const int64_t rows = std::min(part, a.rows - i), k = std::min(slice, a.cols - from),
                    depth = depth_of(k, options.precision);
      pack(kernel.pack_a, options.precision, part_of(a, i, rows, from, k), height, false, scratch.data());
      multiply_slice(kernel,
                     {.a = scratch.data(),
                      .b = nullptr,
                      .m = rows,
                      .n = n,
                      .a_rows = height,
                      .depth = depth,
                      .c = c + i * c_stride,
                      .c_stride = c_stride,
                      .accumulate = options.accumulate || from > 0,
                      .bias = from + k == a.cols ? options.bias : nullptr},
                     [&](int64_t p, float* units) { make(p, from, k, units); });
      from += k;
    } while (from < a.cols);
  }
}

}  // namespace sennit
