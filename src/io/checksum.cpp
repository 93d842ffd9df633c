#include "io/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sennit::io {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read as little-endian words");

constexpr uint64_t kP1 = 0x9e3779b185ebca87, kP2 = 0xc2b2ae3d27d4eb4f, kP3 = 0x165667b19e3779f9,
                   kP4 = 0x85ebca77c2b2ae63, kP5 = 0x27d4eb2f165667c5;

template <class Word>
uint64_t word_at(const unsigned char* p) {
  Word w;
  std::memcpy(&w, p, sizeof w);
  return w;
}

uint64_t mix(uint64_t lane, uint64_t word) {
  return std::rotl(lane + word * kP2, 31) * kP1;
}

uint64_t fold(uint64_t hash, uint64_t lane) {
  return (hash ^ mix(0, lane)) * kP1 + kP4;
}

void absorb(std::array<uint64_t, 4>& lanes, const unsigned char* stripe) {
  for (int i = 0; i < 4; ++i) lanes[i] = mix(lanes[i], word_at<uint64_t>(stripe + 8 * i));
}

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) * 0x82f63b78);
    table[i] = c;
  }
  return table;
}();

}  // namespace

void Xxh64::update(const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  total_ += bytes;
  while (bytes > 0) {
    if (held_ == 0 && bytes >= 32) {
      for (; bytes >= 32; bytes -= 32, p += 32) absorb(lanes_, p);
      continue;
    }
    const size_t n = std::min(bytes, 32 - held_);
    std::memcpy(pending_.data() + held_, p, n);
    held_ += n, p += n, bytes -= n;
    if (held_ == 32) absorb(lanes_, pending_.data()), held_ = 0;
  }
}

uint64_t Xxh64::digest() const {
  uint64_t h = kP5;
  if (total_ >= 32) {
    h = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const uint64_t lane : lanes_) h = fold(h, lane);
  }
  h += total_;
  const unsigned char* p = pending_.data();
  const unsigned char* end = p + held_;
  for (; end - p >= 8; p += 8) h = std::rotl(h ^ mix(0, word_at<uint64_t>(p)), 27) * kP1 + kP4;
  if (end - p >= 4) h = std::rotl(h ^ (word_at<uint32_t>(p) * kP1), 23) * kP2 + kP3, p += 4;
  for (; p < end; ++p) h = std::rotl(h ^ (*p * kP5), 11) * kP1;
  h = (h ^ (h >> 33)) * kP2;
  h = (h ^ (h >> 29)) * kP3;
  return h ^ (h >> 32);
}

uint64_t xxh64(std::span<const std::byte> data) {
  Xxh64 hash;
  hash.update(data.data(), data.size());
  return hash.digest();
}

uint64_t xxh64(std::string_view text) {
  return xxh64(std::as_bytes(std::span(text)));
}

uint32_t crc32c(std::string_view data) {
  uint32_t c = ~0u;
  for (const unsigned char byte : data) c = kCrcTable[(c ^ byte) & 0xff] ^ (c >> 8);
  return ~c;
}

}  // namespace sennit::io
