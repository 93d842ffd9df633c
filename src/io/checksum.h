#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace sennit::io {

// xxHash64 (Collet, "xxHash fast digest algorithm", 2012-2023, seed 0), fed in pieces of any length.
class Xxh64 {
 public:
  void update(const void* data, size_t bytes);
  uint64_t digest() const;

 private:
  std::array<uint64_t, 4> lanes_ = {0x60ea27eeadc0b5d6, 0xc2b2ae3d27d4eb4f, 0, 0x61c8864e7a143579};
  std::array<unsigned char, 32> pending_{};
  size_t held_ = 0;  // bytes in pending_
  uint64_t total_ = 0;
};

uint64_t xxh64(std::span<const std::byte> data);
uint64_t xxh64(std::string_view text);

// CRC-32C (Castagnoli polynomial, reflected), as iSCSI and TensorBoard use it.
uint32_t crc32c(std::string_view data);

}  // namespace sennit::io
