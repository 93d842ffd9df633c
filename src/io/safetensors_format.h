#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tensor/dtype.h"

// What the reader and the writer of safetensors files share.
namespace sennit::io::safetensors_format {

struct Format {
  const char* name;
  int bits;
  std::optional<DType> dtype;  // none: the format has it, Tensor does not
};

const Format* find_dtype(std::string_view name);  // nullptr when unknown
const Format& format_of(DType dtype);

inline constexpr const char* kChecksumKey = "sennit.checksum";
std::string checksum_text(uint64_t xxh64);  // "xxh64:0123456789abcdef"

}  // namespace sennit::io::safetensors_format
