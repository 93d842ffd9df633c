#include "model/tensor_rules.h"

#include <cmath>
#include <cstring>

namespace sennit {
namespace {

using io::StoredTensor;
using Change = TensorRule::Change;

// As a matrix whose rows are the indices of the first dimension.
StoredTensor as_matrix(StoredTensor t) {
  const int64_t rows = t.shape.rank() ? t.shape[0] : 1;
  t.shape = Shape{rows, rows ? t.shape.elements() / rows : 0};
  return t;
}

int64_t bytes_of_row(const StoredTensor& matrix) {
  return row_bytes(matrix.format, matrix.row_size());
}

StoredTensor plain(const StoredTensor& t) {
  return io::is_quantized(t.format) ? io::encoded(t, io::BlockFormat::f32) : t;
}

StoredTensor transposed(const StoredTensor& in) {
  const StoredTensor t = plain(in);
  const int64_t rows = t.shape[0], columns = t.shape[1], size = io::layout_of(t.format).bytes;
  const io::FreshTensor out = io::fresh(t.format, {columns, rows});
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      std::memcpy(out.bytes + (j * rows + i) * size, t.bytes.data() + (i * columns + j) * size, size);
  return out.tensor;
}

// Row r of the result is row source(r).
template <class Source>
StoredTensor gathered(const StoredTensor& t, Source&& source) {
  const io::FreshTensor out = io::fresh(t.format, t.shape);
  const int64_t bytes = bytes_of_row(t);
  for (int64_t r = 0; r < t.shape[0]; ++r)
    std::memcpy(out.bytes + r * bytes, t.bytes.data() + source(r) * bytes, bytes);
  return out.tensor;
}

// Rows of a head from the `turned`-th on stay where they are.
StoredTensor interleaved(const StoredTensor& t, const TensorRule& rule) {
  const int64_t dim = t.shape[0] / rule.heads, turned = rule.rotated ? rule.rotated : dim;
  return gathered(t, [=](int64_t r) {
    const int64_t in_head = r % dim;
    return in_head < turned ? r - in_head + in_head % 2 * (turned / 2) + in_head / 2 : r;
  });
}
StoredTensor separated(const StoredTensor& t, const TensorRule& rule) {
  const int64_t dim = t.shape[0] / rule.heads, turned = rule.rotated ? rule.rotated : dim, half = turned / 2;
  return gathered(t, [=](int64_t r) {
    const int64_t in_head = r % dim;
    return in_head < turned ? r - in_head + in_head % half * 2 + in_head / half : r;
  });
}

template <class Map>
StoredTensor mapped(const StoredTensor& t, Map&& map) {
  Tensor x = io::decoded(t);
  for (float& v : x.span()) v = static_cast<float>(map(double{v}));
  return io::stored(x);
}

StoredTensor stacked(std::span<const StoredTensor> parts) {
  if (parts.size() == 1) return as_matrix(parts[0]);
  bool same = true;
  int64_t rows = 0;
  for (const StoredTensor& p : parts) same = same && p.format == parts[0].format, rows += p.shape[0];
  const io::BlockFormat format = same ? parts[0].format : io::BlockFormat::f32;
  const io::FreshTensor out = io::fresh(format, {rows, as_matrix(parts[0]).row_size()});
  std::byte* at = out.bytes;
  for (const StoredTensor& p : parts) {
    const StoredTensor part = io::encoded(as_matrix(p), format);
    SENNIT_CHECK(part.row_size() == out.tensor.row_size(), "{} under {}", part.shape.str(), out.tensor.shape.str());
    std::memcpy(at, part.bytes.data(), part.bytes.size());
    at += part.bytes.size();
  }
  return out.tensor;
}

}  // namespace

std::vector<StoredTensor> from_theirs(const TensorRule& rule, const StoredTensor& theirs, std::span<const Shape> ours,
                                      const std::string& where) {
  int64_t rows = 0, elements = 0;
  for (const Shape& s : ours) rows += s.rank() ? s[0] : 1, elements += s.elements();
  const int64_t columns = rows ? elements / rows : 0, lead = rule.change == Change::transposed ? columns : rows;
  StoredTensor t = as_matrix(theirs);
  if (columns == 1 && !io::is_quantized(t.format)) t.shape = Shape{t.shape.elements(), 1};
  const bool fits = t.shape.elements() == elements && (t.shape[0] == lead || elements == 0) &&
                    (!io::is_quantized(t.format) || theirs.shape.rank() <= 2);
  if (!fits)
    fail({"model", fmt::format("tensor `{}` to be {} by {}", rule.theirs, lead, rows + columns - lead),
          theirs.shape.str(), where});
  switch (rule.change) {
    case Change::none:
      break;
    case Change::transposed:
      t = transposed(t);
      break;
    case Change::interleaved:
      t = separated(t, rule);
      break;
    case Change::separated:
      t = interleaved(t, rule);
      break;
    case Change::decay:
      t = mapped(t, [](double x) { return std::log(-x); });
      break;
  }
  std::vector<StoredTensor> parts;
  size_t at = 0;
  for (const Shape& s : ours) {
    StoredTensor part{t.format, s, {}, t.owner};
    const size_t bytes = static_cast<size_t>((s.rank() ? s[0] : 1) * bytes_of_row(t));
    part.bytes = t.bytes.subspan(at, bytes);
    at += bytes;
    parts.push_back(std::move(part));
  }
  return parts;
}

StoredTensor to_theirs(const TensorRule& rule, std::span<const StoredTensor> ours) {
  StoredTensor t = stacked(ours);
  const int rank = ours[0].shape.rank();
  switch (rule.change) {
    case Change::none:
      break;
    case Change::transposed:
      return transposed(t);
    case Change::interleaved:
      t = interleaved(t, rule);
      break;
    case Change::separated:
      t = separated(t, rule);
      break;
    case Change::decay:
      t = mapped(t, [](double x) { return -std::exp(x); });
      break;
  }
  if (rank <= 1) t.shape = Shape{t.shape[0]};
  if (rule.shape.rank() > 0) t.shape = rule.shape;
  return t;
}

Tensor tensor_of(const StoredTensor& t) {
  using Owner = std::shared_ptr<const void>;
  SENNIT_CHECK(!io::is_quantized(t.format), "{}", io::layout_of(t.format).name);
  const auto dtype = parse_dtype(io::layout_of(t.format).name);
  return Tensor::adopt(
      const_cast<std::byte*>(t.bytes.data()), t.shape, *dtype, [](void* owner) { delete static_cast<Owner*>(owner); },
      new Owner(t.owner));
}

}  // namespace sennit
