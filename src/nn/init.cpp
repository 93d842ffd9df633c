#include "nn/init.h"

#include <sys/mman.h>

#include <utility>

namespace sennit {
namespace {

thread_local bool blank = false;

// Addresses that take memory only where somebody writes: a model waits for its numbers without room for all of them, in
// a form that may be larger than what they come in.
Tensor blank_tensor(const Shape& shape) {
  constexpr int64_t kSmall = 1 << 16;
  struct Mapping {
    void* address;
    size_t bytes;
  };
  const auto bytes = static_cast<size_t>(shape.elements()) * sizeof(float);
  if (shape.elements() * int64_t{sizeof(float)} < kSmall) return Tensor(shape);
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return Tensor(shape);
  const auto unmap = [](void* owner) {
    const auto* mapping = static_cast<Mapping*>(owner);
    munmap(mapping->address, mapping->bytes);
    delete mapping;
  };
  return Tensor::adopt(address, shape, DType::f32, unmap, new Mapping{address, bytes});
}

}  // namespace

BlankInit::BlankInit() : before_(std::exchange(blank, true)) {}
BlankInit::~BlankInit() { blank = before_; }

Tensor normal_init(Shape shape, double deviation, Rng rng) {
  if (blank) return blank_tensor(shape);
  Tensor t(shape);
  for (float& x : t.span()) x = static_cast<float>(deviation * rng.normal());
  return t;
}

Tensor uniform_init(Shape shape, double low, double high, Rng rng) {
  if (blank) return blank_tensor(shape);
  Tensor t(shape);
  for (float& x : t.span()) x = static_cast<float>(low + (high - low) * rng.uniform());
  return t;
}

}  // namespace sennit
