#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "tensor/allocator.h"
#include "tensor/dtype.h"

namespace sennit {

// The lengths of a tensor's dimensions, slowest first; at most kMaxRank of them, kept in place.
class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  Shape(std::initializer_list<int64_t> lengths);
  explicit Shape(std::span<const int64_t> lengths);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return lengths_[i < 0 ? i + rank_ : i]; }  // negative counts from the end
  int64_t elements() const;
  const int64_t* begin() const { return lengths_.data(); }
  const int64_t* end() const { return lengths_.data() + rank_; }
  bool operator==(const Shape& other) const;
  Shape with(int dimension, int64_t length) const;
  std::string str() const;  // "[3, 4]"

 private:
  std::array<int64_t, kMaxRank> lengths_{};
  int rank_ = 0;
};

// A handle to a row-major array of numbers. Copies share the memory; clone() does not. A tensor may be a run of rows of
// a larger one; its elements are always contiguous. New tensors are not initialised.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(Shape shape, DType dtype = DType::f32);
  Tensor(const Tensor& other) : block_(other.block_), data_(other.data_), shape_(other.shape_), dtype_(other.dtype_) {
    detail::retain(block_);
  }
  Tensor(Tensor&& other) noexcept : block_(other.block_), data_(other.data_), shape_(other.shape_), dtype_(other.dtype_) {
    other.block_ = nullptr, other.data_ = nullptr, other.shape_ = {};
  }
  Tensor& operator=(Tensor other) noexcept;
  ~Tensor() { detail::release(block_); }

  static Tensor zeros(Shape shape, DType dtype = DType::f32);
  static Tensor full(Shape shape, float value);
  static Tensor of(Shape shape, std::initializer_list<float> values);
  static Tensor of(Shape shape, std::span<const float> values);
  // A view of memory that someone else keeps; `release(owner)` is called when the last handle goes.
  static Tensor adopt(void* data, Shape shape, DType dtype, void (*release)(void*), void* owner);

  bool defined() const { return block_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const Shape& shape() const { return shape_; }
  int64_t shape(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  DType dtype() const { return dtype_; }
  int64_t elements() const { return shape_.elements(); }
  int64_t bytes() const { return elements() * dtype_bits(dtype_) / 8; }
  int64_t rows() const { return rank() ? shape_[0] : 1; }
  int64_t row_size() const;  // elements of one index of the first dimension

  template <class T = float>
  T* data() { return static_cast<T*>(typed(dtype_of<T>)); }
  template <class T = float>
  const T* data() const { return static_cast<const T*>(typed(dtype_of<T>)); }
  std::byte* raw() { return data_; }
  const std::byte* raw() const { return data_; }
  std::span<float> span() { return {data(), static_cast<size_t>(elements())}; }
  std::span<const float> span() const { return {data(), static_cast<size_t>(elements())}; }

  Tensor reshape(Shape shape) const;                  // the same memory under another shape
  Tensor slice(int64_t begin, int64_t length) const;  // the same memory, a run of the first dimension
  Tensor clone() const;
  Tensor to(DType dtype) const;  // f32, bf16 and f16 into one another; itself when the dtype is the same
  void fill(float value);
  void copy_from(const Tensor& other);  // same shape and dtype
  bool unique() const { return block_ && __atomic_load_n(&block_->references, __ATOMIC_ACQUIRE) == 1; }

 private:
  void* typed(DType wanted) const;
  detail::Block* block_ = nullptr;
  std::byte* data_ = nullptr;
  Shape shape_;
  DType dtype_ = DType::f32;
};

}  // namespace sennit
