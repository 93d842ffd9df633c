#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "io/gguf.h"

// Any bytes are a GGUF file or one Error; every tensor of a file lies inside it and can be decoded.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  const auto file = std::as_bytes(std::span(data, size));
  try {
    const io::GgufHeader header = io::parse_gguf(file, "fuzz");
    for (const io::GgufEntry& e : header.entries) {
      SENNIT_CHECK(e.begin >= 0 && e.end >= e.begin && e.end <= static_cast<int64_t>(size));
      const io::StoredTensor t{e.format, e.shape, file.subspan(e.begin, e.end - e.begin), {}};
      std::vector<float> row(t.row_size() <= 4096 ? t.row_size() : 0);
      if (t.row_count() > 0 && !row.empty()) io::decode_row(t.format, t.bytes.data(), std::ssize(row), row.data());
    }
  } catch (const Error&) {
  }
  return 0;
}
