#include "products/quantized.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "io/block_affine.h"
#include "products/panel_kernels.h"

namespace sennit {
namespace {

using kernels::kQuantizedColumns;
using kernels::kQuantizedRows;

// From here on unpacking quantized weights should be won back, by a count of instructions: a weight costs what about
// 20 rows of products in 8 bits do.
constexpr int64_t kPairedRows = 32;
constexpr int64_t kQuantizedThreadWork = 1 << 18;  // multiplications that are worth another thread

kernels::QuantizedLayout layout_for(io::BlockFormat format) {
  switch (format) {
    case io::BlockFormat::q4_0: return {4, 1, 8};
    case io::BlockFormat::q4_1:
    case io::BlockFormat::q4_k: return {4, 1};
    case io::BlockFormat::q5_0: return {5, 1, 16};
    case io::BlockFormat::q6_k: return {6, 2, 32};
    case io::BlockFormat::q8_0: return {8, 1, 128};
    default: return {5, 1};
  }
}

void put_half(uint8_t* p, float x) {
  const f16 h = to_f16(std::clamp(x, -65504.0f, 65504.0f));
  std::memcpy(p, &h.bits, 2);
}
float half_at(const uint8_t* p) {
  f16 h;
  std::memcpy(&h.bits, p, 2);
  return to_float(h);
}

// The code of a column of a row in its block.
int code_at(const uint8_t* block, int bits, int64_t row, int64_t column) {
  const int64_t group = column / 4, place = 4 * row + column % 4;
  if (bits == 8) return block[64 * group + place];
  const int low = block[64 * (group % 4) + place] >> (group < 4 ? 0 : 4) & 15;
  if (bits == 4) return low;
  const int64_t line = 8 / (bits - 4);
  const int above = block[64 * (4 + group / line) + place] >> group % line * (bits - 4) & ((1 << (bits - 4)) - 1);
  return low | above << 4;
}

// Deals out a product's groups of panels: each thread has its share in pieces, half of it, half of what is left, and so
// on. Long pieces are read fast, and whoever is done early finds short ones of others.
class Deal {
 public:
  Deal(int64_t groups, int64_t threads, int64_t least) : groups_(groups), threads_(threads) {
    while (threads > 1 && halvings_ < kMostHalvings && (groups >> (halvings_ + 1)) / threads >= least) ++halvings_;
  }
  int64_t pieces() const { return threads_ * (halvings_ + 1); }
  int64_t begin(int64_t piece) const {
    const int64_t thread = piece / (halvings_ + 1), end = groups_ * (thread + 1) / threads_,
                  share = end - groups_ * thread / threads_;
    return end - (share >> piece % (halvings_ + 1));
  }

 private:
  static constexpr int64_t kMostHalvings = 4;
  int64_t groups_, threads_, halvings_ = 0;
};

// The 32 codes of a row in its block, which starts at the row's first place.
void put_codes(const uint8_t* q, int bits, uint8_t* row) {
  uint8_t lines[32] = {};  // four bytes of each
  if (bits == 8) {
    std::memcpy(lines, q, 32);
  } else {
    const int above = bits - 4;
    for (int i = 0; i < 16; ++i) lines[i] = static_cast<uint8_t>((q[i] & 15) | q[16 + i] << 4);
    for (int i = 0; above > 0 && i < 32; ++i) {
      const int bit = i / 4 * above;  // of the byte's column in all lines
      lines[16 + bit / 8 * 4 + i % 4] |= static_cast<uint8_t>(q[i] >> 4 << bit % 8);
    }
  }
  for (int line = 0; line < bits; ++line) std::memcpy(row + 64 * line, lines + 4 * line, 4);
}

}  // namespace

QuantizedMatrix::QuantizedMatrix(const io::StoredTensor& w)
    : WeightForm(w.row_count(), w.row_size()), layout_(layout_for(w.format)) {
  SENNIT_CHECK(io::is_quantized(w.format) && w.shape.rank() == 2, "{} {}", io::layout_of(w.format).name, w.shape.str());
  const int64_t panels = (out() + kQuantizedRows - 1) / kQuantizedRows;
  panels_ = Tensor({panels, blocks() * layout_.block_bytes()}, DType::u8);
  const int64_t grain = std::max<int64_t>(1, kQuantizedThreadWork / 8 / std::max<int64_t>(1, in()));
  parallel_for(panels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) pack_panel(w, p);
  });
}

void QuantizedMatrix::pack_panel(const io::StoredTensor& w, int64_t panel) {
  std::vector<io::AffineBlock> row(static_cast<size_t>(blocks()));
  const int64_t row_bytes = io::row_bytes(w.format, in()), first = panel * kQuantizedRows;
  uint8_t* base = reinterpret_cast<uint8_t*>(panels_.raw()) + panel * blocks() * layout_.block_bytes();
  if (out() - first < kQuantizedRows) std::memset(base, 0, static_cast<size_t>(blocks() * layout_.block_bytes()));
  for (int64_t r = 0; r < std::min(kQuantizedRows, out() - first); ++r) {
    io::affine_blocks(w.format, w.bytes.data() + (first + r) * row_bytes, in(), row.data());
    for (int64_t b = 0; b < blocks(); ++b) {
      uint8_t* block = base + b * layout_.block_bytes();
      put_codes(row[b].q, layout_.bits, block + 4 * r);
      uint8_t* scales = block + 64 * layout_.bits;
      for (int part = 0; part < layout_.parts; ++part) {
        put_half(scales + 32 * part + 2 * r, row[b].scale[part]);
        if (layout_.zero == 0) put_half(scales + 32 * (layout_.parts + part) + 2 * r, row[b].minimum[part]);
      }
    }
  }
}

void QuantizedMatrix::row(int64_t i, float* x) const {
  SENNIT_CHECK(i >= 0 && i < out(), "row {} of {}", i, out());
  const int64_t r = i % kQuantizedRows;
  const uint8_t* block = panels() + i / kQuantizedRows * blocks() * layout_.block_bytes();
  for (int64_t b = 0; b < blocks(); ++b, block += layout_.block_bytes())
    for (int64_t c = 0; c < kQuantizedColumns; ++c) {
      const int q = code_at(block, layout_.bits, r, c);
      const int64_t part = c * layout_.parts / kQuantizedColumns;
      const uint8_t* scale = block + 64 * layout_.bits + 32 * part + 2 * r;
      const float minimum = layout_.zero == 0 ? half_at(scale + 32 * layout_.parts) : half_at(scale) * static_cast<float>(layout_.zero);
      x[b * kQuantizedColumns + c] = half_at(scale) * static_cast<float>(q) - minimum;
    }
}

void QuantizedMatrix::apply(const float* x, int64_t m, float* y, const float* bias, bool bf16) const {
  if (bf16 && m >= kPairedRows) return multiply_paired(x, m, *this, y, bias);
  multiply(x, m, *this, y, bias);
}

void multiply(const float* x, int64_t m, const QuantizedMatrix& w, float* y, const float* bias) {
  if (m == 0 || w.out() == 0) return;
  const int64_t k = w.in(), blocks = k / kQuantizedColumns;
  Tensor memory({m * blocks, sizeof(kernels::RoundedBlock)}, DType::u8);
  auto* const rounded = reinterpret_cast<kernels::RoundedBlock*>(memory.raw());
  const kernels::Quantized* const kernel = &kernels::quantized();
  parallel_for(m, std::max<int64_t>(1, kQuantizedThreadWork / 32 / std::max<int64_t>(1, k)), [=](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) kernel->round_row(x + i * k, k, rounded + i * blocks);
  });
  constexpr int64_t kGroup = kernels::kQuantizedPanels * kQuantizedRows;
  const int64_t groups = (w.out() + kGroup - 1) / kGroup, work = std::max<int64_t>(1, m * k * kGroup),
                least = (kQuantizedThreadWork + work - 1) / work,
                group_bytes = kernels::kQuantizedPanels * blocks * w.layout().block_bytes();
  const Deal deal(groups, std::clamp<int64_t>(groups / least, 1, thread_count()), least);
  const kernels::QuantizedTask whole{.layout = w.layout(),
                                     .panels = w.panels(),
                                     .n = w.out(),
                                     .blocks = blocks,
                                     .x = rounded,
                                     .m = m,
                                     .y = y,
                                     .y_stride = w.out(),
                                     .bias = bias};
  parallel_for(deal.pieces(), 1, [=](int64_t piece, int64_t end_piece) {
    const int64_t b = deal.begin(piece), e = deal.begin(end_piece), first = b * kGroup;
    if (b == e) return;
    kernels::QuantizedTask part = whole;
    part.panels += b * group_bytes, part.y += first;
    part.n = std::min(whole.n, e * kGroup) - first;
    if (bias) part.bias += first;
    kernel->multiply(part);
  });
}

void multiply_paired(const float* x, int64_t m, const QuantizedMatrix& w, float* y, const float* bias) {
  const int64_t k = w.in(), n = w.out(), blocks = k / kQuantizedColumns;
  static_assert(kQuantizedColumns % kernels::kPairedMultiple == 0, "a row of blocks needs no padding");
  const auto unpack = kernels::quantized().unpack;
  const auto make = [&](int64_t p, int64_t from, int64_t count, float* units) {
    for (int64_t column = 0; column < kernels::kPanelColumns; column += kQuantizedRows, units += kQuantizedRows) {
      const int64_t panel = (p * kernels::kPanelColumns + column) / kQuantizedRows,
                    block = panel * blocks + from / kQuantizedColumns;
      if (panel * kQuantizedRows < n)
        unpack(w.layout(), w.panels() + block * w.layout().block_bytes(), count / kQuantizedColumns, units);
      else
        for (int64_t u = 0; u < count / 2; ++u) std::fill_n(units + u * kernels::kPanelColumns, kQuantizedRows, 0.0f);
    }
  };
  multiply_made({x, m, k, k}, n, y, n, {.precision = Precision::bf16, .bias = bias}, make);
}

}  // namespace sennit
