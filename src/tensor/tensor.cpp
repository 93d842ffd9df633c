#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"

namespace sennit {

Shape::Shape(std::initializer_list<int64_t> lengths) : Shape(std::span(lengths.begin(), lengths.size())) {}

Shape::Shape(std::span<const int64_t> lengths) : rank_(static_cast<int>(lengths.size())) {
  SENNIT_CHECK(lengths.size() <= kMaxRank, "{} dimensions", lengths.size());
  std::copy(lengths.begin(), lengths.end(), lengths_.begin());
  for (const int64_t n : lengths) SENNIT_CHECK(n >= 0, "shape {}", str());
}

int64_t Shape::elements() const {
  int64_t n = 1;
  for (const int64_t l : *this) n *= l;
  return n;
}

bool Shape::operator==(const Shape& o) const { return std::equal(begin(), end(), o.begin(), o.end()); }

Shape Shape::with(int dimension, int64_t length) const {
  Shape s = *this;
  s.lengths_[dimension < 0 ? dimension + rank_ : dimension] = length;
  return s;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string(lengths_[i]);
  return s + "]";
}

Tensor::Tensor(Shape shape, DType dtype) : shape_(shape), dtype_(dtype) {
  block_ = detail::allocate_block(bytes());
  data_ = static_cast<std::byte*>(block_->data);
}

Tensor& Tensor::operator=(Tensor other) noexcept {
  std::swap(block_, other.block_);
  std::swap(data_, other.data_);
  std::swap(shape_, other.shape_);
  std::swap(dtype_, other.dtype_);
  return *this;
}

Tensor Tensor::zeros(Shape shape, DType dtype) {
  constexpr int64_t kShare = int64_t{1} << 18;  // bytes that are worth a thread
  Tensor t(shape, dtype);
  parallel_for(t.bytes(), kShare, [&](int64_t begin, int64_t end) { std::memset(t.data_ + begin, 0, end - begin); });
  return t;
}

Tensor Tensor::full(Shape shape, float value) {
  Tensor t(shape);
  t.fill(value);
  return t;
}

Tensor Tensor::of(Shape shape, std::initializer_list<float> values) {
  return of(shape, std::span(values.begin(), values.size()));
}

Tensor Tensor::of(Shape shape, std::span<const float> values) {
  Tensor t(shape);
  SENNIT_CHECK(t.elements() == static_cast<int64_t>(values.size()), "{} values for {}", values.size(), shape.str());
  std::copy(values.begin(), values.end(), t.data());
  return t;
}

Tensor Tensor::adopt(void* data, Shape shape, DType dtype, void (*release)(void*), void* owner) {
  Tensor t;
  t.shape_ = shape, t.dtype_ = dtype;
  t.block_ = detail::adopt_block(data, t.bytes(), release, owner);
  t.data_ = static_cast<std::byte*>(data);
  return t;
}

int64_t Tensor::row_size() const {
  int64_t n = 1;
  for (int i = 1; i < rank(); ++i) n *= shape_[i];
  return n;
}

void* Tensor::typed(DType wanted) const {
  SENNIT_CHECK(dtype_ == wanted, "a {} tensor read as {}", to_string(dtype_), to_string(wanted));
  return data_;
}

Tensor Tensor::reshape(Shape shape) const {
  SENNIT_CHECK(shape.elements() == elements(), "{} as {}", shape_.str(), shape.str());
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(int64_t begin, int64_t length) const {
  SENNIT_CHECK(rank() >= 1 && begin >= 0 && length >= 0 && begin + length <= shape_[0], "rows {}+{} of {}", begin,
               length, shape_.str());
  Tensor t = *this;
  t.data_ += begin * row_size() * dtype_bits(dtype_) / 8;
  t.shape_ = shape_.with(0, length);
  return t;
}

Tensor Tensor::clone() const {
  if (!defined()) return {};
  Tensor t(shape_, dtype_);
  if (bytes()) std::memcpy(t.data_, data_, bytes());
  return t;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return *this;
  Tensor t(shape_, dtype);
  const int64_t n = elements();
  auto convert = [&](auto read, auto write) {
    for (int64_t i = 0; i < n; ++i) write(i, read(i));
  };
  auto into = [&](auto read) {
    switch (dtype) {
      case DType::f32: return convert(read, [d = t.data<float>()](int64_t i, float x) { d[i] = x; });
      case DType::bf16: return convert(read, [d = t.data<bf16>()](int64_t i, float x) { d[i] = to_bf16(x); });
      case DType::f16: return convert(read, [d = t.data<f16>()](int64_t i, float x) { d[i] = to_f16(x); });
      case DType::f64: return convert(read, [d = t.data<double>()](int64_t i, float x) { d[i] = x; });
      default: SENNIT_CHECK(false, "no conversion from {} to {}", to_string(dtype_), to_string(dtype));
    }
  };
  switch (dtype_) {
    case DType::f32: into([s = data<float>()](int64_t i) { return s[i]; }); break;
    case DType::bf16: into([s = data<bf16>()](int64_t i) { return to_float(s[i]); }); break;
    case DType::f16: into([s = data<f16>()](int64_t i) { return to_float(s[i]); }); break;
    case DType::f64: into([s = data<double>()](int64_t i) { return static_cast<float>(s[i]); }); break;
    default: SENNIT_CHECK(false, "no conversion from {} to {}", to_string(dtype_), to_string(dtype));
  }
  return t;
}

void Tensor::fill(float value) { std::fill_n(data(), elements(), value); }

void Tensor::copy_from(const Tensor& other) {
  SENNIT_CHECK(shape_ == other.shape_ && dtype_ == other.dtype_, "{} {} from {} {}", to_string(dtype_), shape_.str(),
               to_string(other.dtype_), other.shape_.str());
  if (bytes()) std::memcpy(data_, other.data_, bytes());
}

}  // namespace sennit
