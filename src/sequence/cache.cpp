#include "sequence/cache.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace sennit {
namespace {

using kernels::cached_units;
using kernels::kCachedRun;

constexpr const char* kNames[] = {"f32", "bf16", "f16", "q8_0"};
constexpr float kLargestHalf = 65504;

f16 to_nearest_f16(float x) {
  return to_f16(std::isnan(x) ? x : std::clamp(x, -kLargestHalf, kLargestHalf));
}

// Up to kCachedRun numbers; one that is not finite makes all of them NaN.
void round_run(const float* x, int64_t n, int8_t* codes, uint8_t* scale) {
  float most = 0;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite = finite && std::isfinite(x[i]), most = std::max(most, std::fabs(x[i]));
  f16 by = to_nearest_f16(finite ? most / 127 : std::numeric_limits<float>::quiet_NaN());
  if (127 * to_float(by) < most && to_float(by) < kLargestHalf) ++by.bits;
  const float step = to_float(by);
  for (int64_t i = 0; i < n; ++i)
    codes[i] = step > 0 ? static_cast<int8_t>(std::clamp(std::nearbyint(x[i] / step), -127.0f, 127.0f)) : int8_t{0};
  std::memcpy(scale, &by.bits, sizeof by.bits);
}

void round_head(const float* x, int64_t dim, uint8_t* head) {
  for (int64_t c = 0; c < dim; c += kCachedRun)
    round_run(x + c, std::min(kCachedRun, dim - c), reinterpret_cast<int8_t*>(head) + c,
              head + dim + 2 * (c / kCachedRun));
}

template <class T, class Convert>
void convert_all(const Tensor& from, Tensor& to, Convert&& convert) {
  std::transform(from.data(), from.data() + from.elements(), to.data<T>(), convert);
}

void widen_codes(const uint8_t* head, float* x, int64_t dim) {
  for (int64_t c = 0; c < dim; ++c) {
    f16 scale;
    std::memcpy(&scale.bits, head + dim + 2 * (c / kCachedRun), sizeof scale.bits);
    x[c] = to_float(scale) * static_cast<float>(static_cast<int8_t>(head[c]));
  }
}

}  // namespace

const char* to_string(CacheFormat format) {
  return kNames[static_cast<int>(format)];
}

std::vector<std::string> cache_formats() {
  return {std::begin(kNames), std::end(kNames)};
}

CacheFormat parse_cache_format(std::string_view name, const std::string& where) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i]) return static_cast<CacheFormat>(i);
  fail({"cache", fmt::format("one of {}", fmt::join(kNames, ", ")), std::string(name), where});
}

DType cache_dtype(CacheFormat format) {
  constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16, DType::u8};
  return kTypes[static_cast<int>(format)];
}

CacheFormat cache_format(DType dtype) {
  for (const CacheFormat f : {CacheFormat::f32, CacheFormat::bf16, CacheFormat::f16})
    if (cache_dtype(f) == dtype) return f;
  SENNIT_CHECK(dtype == DType::u8, "{} keys", to_string(dtype));
  return CacheFormat::q8_0;
}

int64_t cached_numbers(const Tensor& rows, int64_t heads) {
  const int64_t units = rows.row_size() / heads;
  if (rows.dtype() != DType::u8) return units;
  const int64_t whole = units / (kCachedRun + 2), rest = units % (kCachedRun + 2);
  return whole * kCachedRun + (rest ? rest - 2 : 0);
}

const void* cached_head(const Tensor& rows, int64_t row, int64_t head, int64_t heads) {
  const int64_t units = rows.row_size();
  return rows.raw() + (row * units + head * (units / heads)) * dtype_bits(rows.dtype()) / 8;
}

void check_cached(const Var& keys, const Var& values, int64_t heads, int64_t key_dim, int64_t value_dim) {
  const CacheFormat format = cache_format(keys.value().dtype());
  SENNIT_CHECK(keys.value().dtype() == values.value().dtype() && (format == CacheFormat::f32 || !recording()) &&
                   keys.columns() == heads * cached_units(format, key_dim) &&
                   values.columns() == heads * cached_units(format, value_dim),
               "keys {} {}, values {} {}", to_string(format), keys.shape().str(), to_string(values.value().dtype()),
               values.shape().str());
}

Tensor rounded(const Tensor& rows, int64_t heads, CacheFormat format) {
  if (format == CacheFormat::f32) return rows;
  const int64_t dim = rows.row_size() / heads;
  Tensor to({rows.rows(), heads * cached_units(format, dim)}, cache_dtype(format));
  if (format == CacheFormat::bf16)
    convert_all<bf16>(rows, to, [](float x) { return to_bf16(x); });
  else if (format == CacheFormat::f16)
    convert_all<f16>(rows, to, to_nearest_f16);
  else
    for (int64_t i = 0; i < rows.rows() * heads; ++i)
      round_head(rows.data() + i * dim, dim, to.data<uint8_t>() + i * cached_units(format, dim));
  return to;
}

Tensor widened(const Tensor& rows, int64_t heads) {
  if (rows.dtype() != DType::u8) return rows.to(DType::f32);
  const int64_t dim = cached_numbers(rows, heads), units = rows.row_size() / heads;
  Tensor to({rows.rows(), heads * dim});
  for (int64_t i = 0; i < rows.rows() * heads; ++i)
    widen_codes(rows.data<uint8_t>() + i * units, to.data() + i * dim, dim);
  return to;
}

}  // namespace sennit
