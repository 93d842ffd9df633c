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

// Numbers u, ..., u + kLanes - 1 of a head of `dim`, where u = base + more is a multiple of kLanes; zeros beyond the
// head. base and u share their 32, or base is a multiple of 32 (so that neighbours load a scale once).
template <CacheFormat F>
SENNIT_INLINE vf cached(const uint8_t* head, int64_t base, int64_t dim, int more = 0) {
  static_assert(kCachedRun % kLanes == 0);
  const int64_t u = base + more;
  if constexpr (F == CacheFormat::f32) return load_some(reinterpret_cast<const float*>(head) + u, dim - u);
  const auto* halves = reinterpret_cast<const uint16_t*>(head) + u;
  if constexpr (F == CacheFormat::bf16)
    return load_first(
        halves, dim - u, [](const uint16_t* p) __attribute__((always_inline)) { return load_bf16(p); });
  if constexpr (F == CacheFormat::f16)
    return load_first(
        halves, dim - u, [](const uint16_t* p) __attribute__((always_inline)) { return load_f16(p); });
  uint16_t scale;  // at any address
  __builtin_memcpy(&scale, head + dim + 2 * (base / kCachedRun + more / kCachedRun), 2);
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
  CachedRows(const uint8_t* first_row, int64_t row_bytes, CacheFormat f)
      : first(first_row), bytes(row_bytes), format(f) {}
  CachedRows from(int64_t row) const { return {first + row * bytes, bytes, format}; }
};

// panel[dim][width]: `count` rows as columns, zeros in the others; asks for the rows `width` further on early.
inline void pack_cached(const CachedRows& rows, int64_t count, int64_t dim, float* panel, int64_t width) {
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat kFormat = decltype(format)::value;
        pack_squares<false>(
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
        constexpr CacheFormat kFormat = decltype(format)::value;
        for (int64_t i = 0; i < count; ++i)
          for (int64_t u = 0; u < dim; u += kLanes)
            store_some(to + i * dim + u, cached<kFormat>(rows.first + i * rows.bytes, u, dim), dim - u);
      });
}

// out[r][width] = products of R queries with `count` rows, zeros after them: the sums of pack_cached and a product,
// with no panel between.
template <CacheFormat F, int R>
SENNIT_INLINE void dot_some(const float* q, int64_t q_stride, const CachedRows& rows, int64_t count, int64_t dim,
                            float* out, int64_t width) {
  for (int64_t i = 0; i < width; i += kLanes) {
    vf sums[R];
    for (int r = 0; r < R; ++r) sums[r] = zero();
    for (int64_t u = 0; i < count && u < dim; u += kLanes) {
      vf square[kLanes];
#pragma GCC unroll 16
      for (int k = 0; k < kLanes; ++k) {
        const uint8_t* row = rows.first + (i + k) * rows.bytes;
        __builtin_prefetch(row + width * rows.bytes + u * cached_unit_bytes(F));
        square[k] = i + k < count ? cached<F>(row, u, dim) : zero();
      }
      transpose(square);
      const int64_t units = smaller(dim - u, kLanes);
#pragma GCC unroll 16
      for (int k = 0; k < kLanes; ++k)
        if (k < units)
          for (int r = 0; r < R; ++r) sums[r] = fma(set(q[r * q_stride + u + k]), square[k], sums[r]);
    }
    for (int r = 0; r < R; ++r) store_some(out + r * width + i, sums[r], width - i);
  }
}

// o[u ...] += sum of w[j] times row j for begin <= j < end, in order, for V vectors.
template <CacheFormat F, int V>
SENNIT_INLINE void add_some(const float* w, const CachedRows& rows, int64_t begin, int64_t end, int64_t u, int64_t dim,
                            float* o) {
  vf sums[V];
  for (int v = 0; v < V; ++v) sums[v] = load_some(o + u + v * kLanes, dim - u - v * kLanes);
  for (int64_t j = begin; j < end; ++j) {
    const uint8_t* row = rows.first + j * rows.bytes;
    const vf by = set(w[j]);
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(row + 64 * rows.bytes + (u + v * kLanes) * cached_unit_bytes(F));
      sums[v] = fma(by, cached<F>(row, u, dim, v * kLanes), sums[v]);
    }
  }
  for (int v = 0; v < V; ++v) store_some(o + u + v * kLanes, sums[v], dim - u - v * kLanes);
}

// The same for a few queries, in any format.
inline void dot_cached(const float* q, int64_t q_stride, int64_t queries, const CachedRows& rows, int64_t count,
                       int64_t dim, float* out, int64_t width) {
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat kFormat = decltype(format)::value;
        int64_t r = 0;
        for (; r + 4 <= queries; r += 4)
          dot_some<kFormat, 4>(q + r * q_stride, q_stride, rows, count, dim, out + r * width, width);
        for (; r < queries; ++r)
          dot_some<kFormat, 1>(q + r * q_stride, q_stride, rows, count, dim, out + r * width, width);
      });
}
inline void add_cached(const float* w, const CachedRows& rows, int64_t begin, int64_t end, int64_t dim, float* o) {
  constexpr int kTogether = kLanes > 8 ? 4 : 8;
  with_format(
      rows.format, [&](auto format) __attribute__((always_inline)) {
        constexpr CacheFormat kFormat = decltype(format)::value;
        int64_t u = 0;
        for (; u + kTogether * kLanes <= dim; u += kTogether * kLanes)
          add_some<kFormat, kTogether>(w, rows, begin, end, u, dim, o);
        for (; u < dim; u += kLanes) add_some<kFormat, 1>(w, rows, begin, end, u, dim, o);
      });
}

}  // namespace
}  // namespace sennit::kernels::SENNIT_LEVEL
