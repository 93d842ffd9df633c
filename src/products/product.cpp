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

// 32-bit units along k of a packed panel.
int64_t depth_of(int64_t k, Precision precision) {
  constexpr int64_t kMultiple = kernels::kPairedMultiple;
  return precision == Precision::f32 ? k : (k + kMultiple - 1) / kMultiple * kMultiple / 2;
}

// Calls make(p) for each of `panels` panels of `units` units.
template <class Make>
void make_panels(int64_t panels, int64_t units, const Make& make) {
  const int64_t grain = std::max<int64_t>(1, kThreadWork / 8 / std::max<int64_t>(1, units));
  parallel_for(panels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) make(p);
  });
}

using PackPanel = void (*)(const float* x, int64_t stride, bool k_major, int64_t width, int64_t k, float* panel);

// Packs `length` rows of a (or columns of b) that start at x, in panels of `width`.
void pack(PackPanel pack_panel, const float* x, int64_t stride, bool k_major, int64_t length, int64_t width, int64_t k,
          int64_t depth, float* out) {
  make_panels(panels_in(length, width), width * k, [&](int64_t p) {
    const int64_t first = p * width;
    pack_panel(x + first * (k_major ? 1 : stride), stride, k_major, std::min(width, length - first), k,
               out + first * depth);
  });
}

// c is cut into tiles of whole panels, small enough that each thread gets several.
struct TileGrid {
  int64_t rows, columns;  // of a tile
  int64_t row_tiles, column_tiles;

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
  }
};

// The packed a by panels of b that each thread makes for itself, as many as stay in its second cache: they meet all
// rows there before the next are made.
template <class Make>
void multiply_slice(const PanelKernels& kernel, const kernels::PanelProduct& whole, const Make& make) {
  const int64_t panels = panels_in(whole.n, kPanelColumns), wanted = 2 * thread_count();
  int64_t group = std::min<int64_t>(panels, kGroupPanels);
  while (group > 1 && panels_in(panels, group) < wanted) group = (group + 1) / 2;
  const int64_t groups = panels_in(panels, group), blocks = panels_in(whole.m, kernel.block_rows),
                parts = std::clamp<int64_t>(panels_in(wanted, groups), 1, std::max<int64_t>(1, blocks));
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

// The rows of a, packed a part at a time, by panels of b that start at column 0 of c.
void multiply_rows(const PanelKernels& kernel, const MatrixView& a, kernels::PanelProduct product) {
  const int64_t height = kernel.panel_rows(a.rows);
  const int64_t part = std::max<int64_t>(1, kScratchUnits / std::max<int64_t>(1, height * product.depth)) * height;
  Tensor scratch({std::min(a.rows, part) * product.depth});
  product.a_rows = height;
  float* c = product.c;
  for (int64_t i = 0; i < a.rows; i += part) {
    product.m = std::min(part, a.rows - i);
    pack(kernel.pack_a, a.data + i * (a.transposed ? 1 : a.stride), a.stride, a.transposed, product.m, height, a.cols,
         product.depth, scratch.data());
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
  parallel_for(grid.row_tiles * grid.column_tiles, (kThreadWork + work - 1) / work, [&](int64_t begin, int64_t end) {
    const int64_t run = grid.row_tiles == 1 ? end - begin : 1;  // tiles side by side are one
    for (int64_t t = begin; t < end; t += run) {
      const int64_t i = t % grid.row_tiles * grid.rows, j = t / grid.row_tiles * grid.columns;
      kernels::PanelProduct tile = whole;
      tile.a += i * whole.depth;
      tile.b += j * whole.depth;
      tile.m = std::min(grid.rows, whole.m - i);
      tile.n = std::min(run * grid.columns, whole.n - j);
      tile.c += i * whole.c_stride + j;
      if (whole.bias) tile.bias += j;
      if (whole.a_scale) tile.a_scale += i, tile.b_scale += j, tile.b_sums += j;
      kernel.multiply(tile);
    }
    kernel.done();
  });
}

PackedMatrix::PackedMatrix(MatrixView b, Precision precision) : rows_(b.rows), cols_(b.cols), precision_(precision) {
  check_view(b, "b");
  const int64_t depth = depth_of(b.rows, precision), panels = panels_in(b.cols, kPanelColumns);
  panels_ = precision == Precision::f32 ? Tensor({panels, depth, kPanelColumns})
                                        : Tensor({panels, depth, kPanelColumns, 2}, DType::bf16);
  pack(panel_kernels(precision).pack_b, b.data, b.stride, !b.transposed, b.cols, kPanelColumns, b.rows, depth,
       reinterpret_cast<float*>(panels_.raw()));
}

void multiply(MatrixView a, const PackedMatrix& b, float* c, int64_t c_stride, bool accumulate, const float* bias) {
  check_product(a, b.rows(), b.cols(), c_stride);
  if (a.rows == 0 || b.cols() == 0) return;
  const PanelKernels& kernel = panel_kernels(b.precision());
  multiply_rows(kernel, a,
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
  multiply_made(a, b.cols, c, c_stride, options, [&](int64_t p, int64_t from, int64_t k, float* units) {
    const int64_t first = p * kPanelColumns, width = std::min(kPanelColumns, b.cols - first);
    const float* x = b.transposed ? b.data + first * b.stride + from : b.data + from * b.stride + first;
    pack_b(x, b.stride, !b.transposed, width, k, units);
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
      const float* x = a.data + (a.transposed ? from * a.stride + i : i * a.stride + from);
      pack(kernel.pack_a, x, a.stride, a.transposed, rows, height, k, depth, scratch.data());
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
