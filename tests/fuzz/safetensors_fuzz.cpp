#include <cstdint>
#include <span>

#include "base/error.h"
#include "io/safetensors.h"

// Any bytes are a safetensors file or one Error; every tensor of a file lies inside it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const io::SafetensorsHeader header = io::parse_safetensors(file, "fuzz");
    int64_t covered = 0;
    for (const io::SafetensorsEntry& e : header.entries) {
      SENNIT_CHECK(e.begin == covered && e.end >= e.begin);
      covered = e.end;
    }
    SENNIT_CHECK(header.data_begin + covered == static_cast<int64_t>(size));
  } catch (const Error&) {
  }
  return 0;
}
