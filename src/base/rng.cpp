#include "base/rng.h"

#include <cmath>
#include <numbers>

#include "base/error.h"

namespace sennit {

std::array<uint32_t, 4> philox(uint64_t key, uint64_t high, uint64_t low) {
  constexpr uint64_t kM0 = 0xD2511F53, kM1 = 0xCD9E8D57;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(low), c1 = static_cast<uint32_t>(low >> 32);
  uint32_t c2 = static_cast<uint32_t>(high), c3 = static_cast<uint32_t>(high >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kM0 * c0, p1 = kM1 * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1), c3 = static_cast<uint32_t>(p0), c0 = n0, c2 = n2;
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  return {c0, c1, c2, c3};
}

uint64_t hash64(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325;
  for (const unsigned char c : text) h = (h ^ c) * 0x100000001b3;
  return h;
}

Rng Rng::fork(std::string_view name) const { return fork(hash64(name)); }

Rng Rng::fork(uint64_t number) const {
  const auto w = philox(seed_, stream_, number ^ 0x5e4417ULL << 40);
  return Rng(seed_, (uint64_t{w[1]} << 32) | w[0]);
}

uint64_t Rng::bits_at(uint64_t i) const {
  const auto w = philox(seed_, stream_, i);
  return (uint64_t{w[1]} << 32) | w[0];
}

double Rng::uniform_at(uint64_t i) const { return static_cast<double>(bits_at(i) >> 11) * 0x1p-53; }

double Rng::normal_at(uint64_t i) const {
  const auto w = philox(seed_, stream_, i);
  const double u = (static_cast<double>(w[0]) + 1) * 0x1p-32, v = static_cast<double>(w[1]) * 0x1p-32;
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

int64_t Rng::below(int64_t n) {
  SENNIT_CHECK(n > 0);
  return static_cast<int64_t>(uniform() * static_cast<double>(n));
}

}  // namespace sennit
