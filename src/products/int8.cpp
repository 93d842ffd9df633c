#include "products/int8.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "kernels/int8_rows.h"
#include "products/panel_kernels.h"
#include "tensor/scratch.h"

namespace sennit {
namespace {

using kernels::kPanelColumns;
using kernels::PanelKernels;

constexpr int64_t kQuad = 4;  // numbers in a unit

int64_t int8_depth(int64_t k) {
  return panels_in(k, kernels::kInt8Multiple) * kernels::kInt8Multiple / kQuad;
}

// Rows of x as panels of a, `height` rows each, and their scales.
void round_rows(const PanelKernels& kernel, const float* x, int64_t m, int64_t k, int64_t height, float* panels,
                float* scales) {
  const auto round = kernels::int8_rows().round;
  const int64_t depth = int8_depth(k);
  const auto round_panel = [=, pack = kernel.pack_a](int64_t p, float* units) {
    const int64_t first = p * height, rows = std::min(height, m - first);
    for (int64_t r = 0; r < rows; ++r)
      round(x + (first + r) * k, k, reinterpret_cast<int8_t*>(units + r * depth), scales + first + r);
    pack(units, depth, false, rows, depth, panels + first * depth);
  };
  each_with_scratch(panels_in(m, height), height * depth, round_panel, 1 + m * depth / (kThreadWork / 8));
}

}  // namespace

Int8Matrix::Int8Matrix(const io::StoredTensor& w) : WeightForm(w.shape[0], w.row_size()) {
  SENNIT_CHECK(w.shape.rank() == 2, "{}", w.shape.str());
  if (in() > kMostColumns)
    fail({"int8 weights", fmt::format("rows of at most {} numbers", kMostColumns), fmt::format("{}", in())});
  const int64_t panels = panels_in(out(), kPanelColumns);
  panels_ = Tensor({panels, depth(), kPanelColumns, kQuad}, DType::i8);
  scales_ = Tensor({out()});
  sums_ = Tensor({out()}, DType::i32);
  const int64_t grain = std::max<int64_t>(1, kThreadWork / (kPanelColumns * std::max<int64_t>(1, in())));
  parallel_for(panels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) pack_panel(w, p);
  });
}

int64_t Int8Matrix::depth() const {
  return int8_depth(in());
}

void Int8Matrix::pack_panel(const io::StoredTensor& w, int64_t panel) {
  const int64_t first = panel * kPanelColumns, rows = std::min(kPanelColumns, out() - first),
                row_bytes = io::row_bytes(w.format, in());
  std::vector<float> x(static_cast<size_t>(in())), units(static_cast<size_t>(rows * depth()));
  for (int64_t r = 0; r < rows; ++r) {
    io::decode_row(w.format, w.bytes.data() + (first + r) * row_bytes, in(), x.data());
    auto* const q = reinterpret_cast<int8_t*>(units.data() + r * depth());
    kernels::int8_rows().round(x.data(), in(), q, scales_.data() + first + r);
    reinterpret_cast<int32_t*>(sums_.raw())[first + r] = std::accumulate(q, q + in(), int32_t{0});
  }
  float* const out_panel = reinterpret_cast<float*>(panels_.raw()) + first * depth();
  int8_panel_kernels().pack_b(units.data(), depth(), false, rows, depth(), out_panel);
}

void Int8Matrix::row(int64_t i, float* x) const {
  SENNIT_CHECK(i >= 0 && i < out(), "row {} of {}", i, out());
  const int64_t first = i / kPanelColumns * kPanelColumns;
  const auto* q = reinterpret_cast<const int8_t*>(panels_.raw()) + kQuad * (first * depth() + i - first);
  for (int64_t c = 0; c < in(); ++c)
    x[c] = scales()[i] * static_cast<float>(q[c / kQuad * kQuad * kPanelColumns + c % kQuad]);
}

void Int8Matrix::apply(const float* x, int64_t m, float* y, const float* bias, bool) const {
  multiply(x, m, *this, y, bias);
}

void multiply(const float* x, int64_t m, const Int8Matrix& w, float* y, const float* bias) {
  if (m == 0 || w.out() == 0) return;
  const PanelKernels& kernel = int8_panel_kernels();
  const int64_t height = kernel.panel_rows(m), k = w.in(), n = w.out(), depth = w.depth();
  const int64_t part = std::max<int64_t>(1, kScratchUnits / std::max<int64_t>(1, height * depth)) * height;
  Tensor panels({std::min(m, part) * depth}), scales({std::min(m, part)});
  for (int64_t i = 0; i < m; i += part) {
    const int64_t rows = std::min(part, m - i);
    round_rows(kernel, x + i * k, rows, k, height, panels.data(), scales.data());
    multiply_panels(kernel, {.a = panels.data(),
                             .b = w.panels(),
                             .m = rows,
                             .n = n,
                             .a_rows = height,
                             .depth = depth,
                             .c = y + i * n,
                             .c_stride = n,
                             .accumulate = false,
                             .bias = bias,
                             .a_scale = scales.data(),
                             .b_scale = w.scales(),
                             .b_sums = w.sums()});
  }
}

}  // namespace sennit
