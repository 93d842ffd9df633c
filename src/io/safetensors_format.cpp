#include "io/safetensors_format.h"

#include "base/error.h"

namespace sennit::io::safetensors_format {
namespace {

constexpr Format kFormats[] = {
    {"BOOL", 8, DType::boolean},
    {"U8", 8, DType::u8},
    {"I8", 8, DType::i8},
    {"I16", 16, DType::i16},
    {"U16", 16, DType::u16},
    {"I32", 32, DType::i32},
    {"U32", 32, DType::u32},
    {"I64", 64, DType::i64},
    {"U64", 64, DType::u64},
    {"F16", 16, DType::f16},
    {"BF16", 16, DType::bf16},
    {"F32", 32, DType::f32},
    {"F64", 64, DType::f64},
    {"F8_E4M3", 8, DType::f8_e4m3},
    {"F8_E5M2", 8, DType::f8_e5m2},
    {"F8_E8M0", 8, std::nullopt},
    {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt},
    {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},
    {"F4", 4, std::nullopt},
    {"C64", 64, std::nullopt},
};

}  // namespace

const Format* find_dtype(std::string_view name) {
  for (const Format& f : kFormats)
    if (name == f.name) return &f;
  return nullptr;
}

const Format& format_of(DType dtype) {
  for (const Format& f : kFormats)
    if (f.dtype == dtype) return f;
  SENNIT_CHECK(false, "{} has no place in safetensors", to_string(dtype));
  return kFormats[0];
}

std::string checksum_text(uint64_t xxh64) {
  return fmt::format("xxh64:{:016x}", xxh64);
}

}  // namespace sennit::io::safetensors_format
