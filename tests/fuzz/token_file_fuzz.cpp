#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "data/packer.h"
#include "data/token_file.h"
#include "io/checksum.h"

using sennit::data::TokenFile;
using sennit::data::TokenFileHeader;

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

// Without a right checksum of the header a mutation would never get past it.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, most);
  constexpr size_t kSummed = offsetof(TokenFileHeader, header_checksum);
  if (size >= sizeof(TokenFileHeader) && seed % 8 != 0) {
    const uint64_t sum = sennit::io::xxh64(std::string_view(reinterpret_cast<const char*>(data), kSummed));
    std::memcpy(data + kSummed, &sum, sizeof sum);
  }
  return size;
}

// Any bytes are a token file or one Error, and what is one can be read through and packed.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sennit;
  std::vector<uint64_t> aligned(size / 8 + 1);
  if (size > 0) std::memcpy(aligned.data(), data, size);
  try {
    const auto file = std::make_shared<TokenFile>(
        std::span(reinterpret_cast<const std::byte*>(aligned.data()), size), "fuzz");
    for (int64_t d = 0; d < file->documents(); ++d) SENNIT_CHECK(file->document_at(file->document_begin(d)) == d);
    for (const auto& batch : {data::ShuffledBatches(file, 2, 5, 1).at(3), data::StreamedBatches(file, 2, 5).at(3),
                              data::EvaluationBatches(file, 2, 5, 3).at(0)})
      SENNIT_CHECK(batch.tokens.size() == batch.targets.size());
    file->verify();
  } catch (const Error&) {
  }
  return 0;
}
