#pragma once
// Rows of keys and values widened as they are read, for kernels only (see simd.h).
#include "kernels/cached.h"
#include "kernels/halves.h"
#include "kernels/panels.h"

namespace sennit::kernels::SENNIT_LEVEL {
namespace {

// The first n lanes of `load` from p, zeros in the others, without reading further.
template <class T, class Load>
SENNIT_INLINE vf load_first(const T* p, int64_t n, const Load& load) {
  if (n >= kLanes) return load(p);
  T part[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}

// Numbers u, ..., u + kLanes - 1 of a head of `dim`; zeros beyond it. u is a multiple of kLanes.
template <CacheFormat F>
SENNIT_INLINE vf cached(const uint8_t* head, int64_t u, int64_t dim) {
  static_assert(kCachedRun % kLanes == 0);
  if constexpr (F == CacheFormat::f32) return load_some(reinterpret_cast<const float*>(head) + u, dim - u);
  const auto* halves = reinterpret_cast<const uint16_t*>(head) + u;
  if constexpr (F == CacheFormat::bf16)
    return load_first(
        halves, dim - u, [](const uint16_t* p) __attribute__((always_inline)) { return load_bf16(p); });
  if constexpr (F == CacheFormat::f16)
    return load_first(
        halves, dim - u, [](const uint16_t* p) __attribute__((always_inline)) { return load_f16(p); });
  uint16_t scale;  // at any address
  __builtin_memcpy(&scale, head + dim + 2 * (u / kCachedRun), 2);
  const auto* codes = reinterpret_cast<const int8_t*>(head) + u;
  return load_first(
             codes, dim - u, [](const int8_t* p) __attribute__((always_inline)) { return load_i8(p); }) *
         set_f16(scale);
}

template <CacheFormat F>
struct Constant {
  static constexpr CacheFormat value = F;
};

// Calls body(format as a constant).
template <class Body>
SENNIT_INLINE void with_format(CacheFormat format, const Body& body) {
  switch (format) {
    case CacheFormat::f32:
      return body(Constant<CacheFormat::f32>{});
    case CacheFormat::bf16:
      return body(Constant<CacheFormat::bf16>{});
    case CacheFormat::f16:
      return body(Constant<CacheFormat::f16>{});
    case CacheFormat::q8_0:
      return body(Constant<CacheFormat::q8_0>{});
  }
}

// Rows of one head, `bytes` apart.
struct CachedRows {
  const uint8_t* first;
  int64_t bytes;
  CacheFormat format;
  CachedRows(const void* x, int64_t stride, CacheFormat f, int64_t row)
      : first(static_cast<const uint8_t*>(x) + row * stride * cached_unit_bytes(f)),
        bytes(stride * cached_unit_bytes(f)),
        format(f) {}
};

// Asks for `count` rows of `dim` numbers early. One head of a long cache is a few lines in every page or two, which the
// processor does not foresee. Inlined by force: g++ takes a call that only prefetches for one without effect.
SENNIT_INLINE void prefetch(const CachedRows& rows, int64_t count, int64_t dim) {
  constexpr int64_t kLine = 64;
  const int64_t bytes = cached_units(rows.format, dim) * cached_unit_bytes(rows.format);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t b = 0; b < bytes + kLine - 1; b += kLine) __builtin_prefetch(rows.first + i * rows.bytes + b);
}

// panel[dim][width]: `count` rows as columns, zeros in the others; asks for the rows `width` further on early.
inline void pack_cached(const CachedRows& rows, int64_t count, int64_t dim, float* panel, int64_t width) {
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat kFormat = decltype(format)::value;
        pack_squares(
            count, panel, width, dim, [&](int64_t i, int64_t u) __attribute__((always_inline)) {
              __builtin_prefetch(rows.first + (i + width) * rows.bytes + u * cached_unit_bytes(kFormat));
              return cached<kFormat>(rows.first + i * rows.bytes, u, dim);
            });
      });
}

// to[count][dim]
inline void widen_cached(const CachedRows& rows, int64_t count, int64_t dim, float* to) {
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        for (int64_t i = 0; i < count; ++i)
          for (int64_t u = 0; u < dim; u += kLanes)
            store_some(to + i * dim + u, cached<decltype(format)::value>(rows.first + i * rows.bytes, u, dim), dim - u);
      });
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
