#include "products/product.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "products/panel_kernels.h"

namespace sennit {
namespace {

using kernels::kPanelColumns;
using kernels::PanelKernels;

constexpr int64_t kScratchUnits = 4 << 20;  // of one factor packed at a time: 16 MiB
constexpr int64_t kThreadWork = 1 << 18;    // multiplications that are worth another thread

// 32-bit units along k of a packed panel.
int64_t depth_of(int64_t k, Precision precision) {
  constexpr int64_t kMultiple = kernels::kPairedMultiple;
  return precision == Precision::f32 ? k : (k + kMultiple - 1) / kMultiple * kMultiple / 2;
}

int64_t panels_in(int64_t length, int64_t width) {
  return (length + width - 1) / width;
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

  TileGrid(int64_t m, int64_t n, int64_t panel_rows) {
    int64_t row_panels = std::min<int64_t>(panels_in(m, panel_rows), std::max<int64_t>(1, 224 / panel_rows));
    int64_t column_panels = std::min<int64_t>(panels_in(n, kPanelColumns), 32);
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

void multiply_panels(const PanelKernels& kernel, const kernels::PanelProduct& whole) {
  const TileGrid grid(whole.m, whole.n, whole.a_rows);
  const int64_t work = std::max<int64_t>(1, grid.rows * grid.columns * whole.depth);
  parallel_for(grid.row_tiles * grid.column_tiles, (kThreadWork + work - 1) / work, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t i = t % grid.row_tiles * grid.rows, j = t / grid.row_tiles * grid.columns;
      kernels::PanelProduct tile = whole;
      tile.a += i * whole.depth;
      tile.b += j * whole.depth;
      tile.m = std::min(grid.rows, whole.m - i);
      tile.n = std::min(grid.columns, whole.n - j);
      tile.c += i * whole.c_stride + j;
      if (whole.bias) tile.bias += j;
      kernel.multiply(tile);
    }
  });
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
  if (precision == Precision::f32) return *gemm.f32;
  return amx_tiles() == AmxTiles::wide ? *gemm.bf16 : *gemm.bf16_narrow;
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
  multiply_made(a, b.cols, c, c_stride, options, [&](int64_t p, float* units) {
    const int64_t first = p * kPanelColumns, width = std::min(kPanelColumns, b.cols - first);
    pack_b(b.data + first * (b.transposed ? b.stride : 1), b.stride, !b.transposed, width, b.rows, units);
  });
}

void multiply_made(MatrixView a, int64_t n, float* c, int64_t c_stride, const ProductOptions& options,
                   const std::function<void(int64_t panel, float* units)>& make) {
  check_product(a, a.cols, n, c_stride);
  const int64_t depth = depth_of(a.cols, options.precision), panels = panels_in(n, kPanelColumns);
  const int64_t part = std::max<int64_t>(1, kScratchUnits / std::max<int64_t>(1, kPanelColumns * depth));
  for (int64_t first = 0; first < panels && a.rows > 0; first += part) {
    const int64_t count = std::min(part, panels - first), j = first * kPanelColumns;
    Tensor scratch({count * kPanelColumns * depth});
    make_panels(count, kPanelColumns * a.cols,
                [&](int64_t p) { make(first + p, scratch.data() + p * kPanelColumns * depth); });
    multiply_rows(panel_kernels(options.precision), a,
                  {.a = nullptr,
                   .b = scratch.data(),
                   .m = a.rows,
                   .n = std::min(n - j, count * kPanelColumns),
                   .a_rows = 0,
                   .depth = depth,
                   .c = c + j,
                   .c_stride = c_stride,
                   .accumulate = options.accumulate,
                   .bias = options.bias ? options.bias + j : nullptr});
  }
}

}  // namespace sennit
