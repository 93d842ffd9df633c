#include "tensor/dtype.h"

#include "base/error.h"

namespace sennit {
namespace {

struct Row {
  DType dtype;
  const char* name;
  int bits;
};
constexpr Row kRows[] = {{DType::f32, "f32", 32},   {DType::bf16, "bf16", 16},       {DType::f16, "f16", 16},
                         {DType::f64, "f64", 64},   {DType::i8, "i8", 8},            {DType::u8, "u8", 8},
                         {DType::i16, "i16", 16},   {DType::u16, "u16", 16},         {DType::i32, "i32", 32},
                         {DType::u32, "u32", 32},   {DType::i64, "i64", 64},         {DType::u64, "u64", 64},
                         {DType::boolean, "bool", 8}, {DType::f8_e4m3, "f8_e4m3", 8}, {DType::f8_e5m2, "f8_e5m2", 8}};

}  // namespace

int dtype_bits(DType dtype) { return kRows[static_cast<int>(dtype)].bits; }
const char* to_string(DType dtype) { return kRows[static_cast<int>(dtype)].name; }

std::optional<DType> parse_dtype(std::string_view name) {
  for (const Row& r : kRows)
    if (name == r.name) return r.dtype;
  return std::nullopt;
}

float to_float(f16 h) {
  const uint32_t sign = uint32_t{h.bits & 0x8000u} << 16, exponent = (h.bits >> 10) & 31, fraction = h.bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000 | (fraction << 13));
  if (exponent == 0) {
    const float tiny = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -tiny : tiny;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

f16 to_f16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x), magnitude = u & 0x7fffffff;
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000);
  auto with = [&](uint32_t bits) { return f16{static_cast<uint16_t>(sign | bits)}; };
  if (magnitude > 0x7f800000) return with(0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x477ff000) return with(0x7c00);  // rounds past the largest, or infinite
  if (magnitude >= 0x38800000) return with(((magnitude + 0xfff + ((magnitude >> 13) & 1)) >> 13) - (112 << 10));
  // Below the normal range: adding 0.5 lets the float unit round to the subnormal grid of 2^-24.
  const float grid = std::bit_cast<float>(magnitude) + 0.5f;
  return with(std::bit_cast<uint32_t>(grid) - 0x3f000000);
}

}  // namespace sennit
