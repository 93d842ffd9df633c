#pragma once
#include <cstdint>

namespace sennit::kernels {

// How rows of keys and values are kept. A row is that of some heads of `dim` numbers, each head by itself:
//   f32, bf16, f16   its numbers
//   q8_0             [dim] i8 codes, then [ceil(dim / 32)] f16 scales: a number is its code times the scale of its 32
enum class CacheFormat { f32, bf16, f16, q8_0 };

inline constexpr int64_t kCachedRun = 32;  // numbers that share a scale

// Units of a head: numbers of the format, bytes of q8_0.
constexpr int64_t cached_units(CacheFormat format, int64_t dim) {
  return format == CacheFormat::q8_0 ? dim + 2 * ((dim + kCachedRun - 1) / kCachedRun) : dim;
}
constexpr int64_t cached_unit_bytes(CacheFormat format) {
  return format == CacheFormat::f32 ? 4 : format == CacheFormat::q8_0 ? 1 : 2;
}

}  // namespace sennit::kernels
