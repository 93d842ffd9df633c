#include "mixers/distributed_memory.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sennit::mixers {
namespace {

double log_choose(int64_t n, int64_t k) {
  const auto log_factorial = [](int64_t m) { return std::lgamma(static_cast<double>(m) + 1); };
  return log_factorial(n) - log_factorial(k) - log_factorial(n - k);
}

}  // namespace

// Of the `apart` bits in which the two differ, an address flips `flipped` of the first: it lies so many plus `same`
// flips of the other bits from the first, and apart - flipped + same from the second.
double log_intersection(int64_t bits, int64_t radius, int64_t apart) {
  double top = -INFINITY, sum = 0;
  for (int64_t flipped = 0; flipped <= apart; ++flipped)
    for (int64_t same = 0; same <= bits - apart; ++same) {
      if (flipped + same > radius || apart - flipped + same > radius) continue;
      const double term = log_choose(apart, flipped) + log_choose(bits - apart, same), high = std::fmax(top, term);
      sum = sum * std::exp(top - high) + std::exp(term - high);
      top = high;
    }
  return sum > 0 ? top + std::log(sum) : -INFINITY;
}

// A direction's projection on the plane of the two has the density (1 - rho^2)^(dims/2 - 2) (dims - 2) / (2 pi) rho.
double log_cap_intersection(int64_t dims, double cap, double apart) {
  constexpr int64_t kSteps = 1000;
  double sum = 0;
  for (int64_t i = 0; i < kSteps; ++i) {
    const double rho = (static_cast<double>(i) + 0.5) / kSteps;
    if (rho <= std::cos(cap)) continue;
    // Both cosines reach the cap's from apart - reach to reach, measured from the first.
    const double reach = std::acos(std::cos(cap) / rho), width = std::min(2 * M_PI, 2 * reach - apart);
    if (width > 0)
      sum += width * rho * std::pow(1 - rho * rho, static_cast<double>(dims) / 2 - 2) * static_cast<double>(dims - 2) /
             (2 * M_PI * kSteps);
  }
  return std::log(sum);
}

IntersectionFit fit_intersection(int64_t bits, int64_t radius) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0, yy = 0;
  for (int64_t apart = 0; apart <= radius; ++apart) {
    const double at = static_cast<double>(apart), log = log_intersection(bits, radius, apart);
    n += 1, x += at, y += log, xx += at * at, xy += at * log, yy += log * log;
  }
  const double of_x = xx - x * x / n, of_both = xy - x * y / n, of_y = yy - y * y / n;
  const double rate = -of_both / of_x;
  return {rate, rate * static_cast<double>(bits) / 2, of_both * of_both / (of_x * of_y)};
}

DistributedMemory::DistributedMemory(int64_t bits, int64_t radius, int64_t addresses, Rng rng)
    : bits_(bits),
      radius_(radius),
      sums_(static_cast<size_t>(addresses), std::vector<int64_t>(static_cast<size_t>(bits))) {
  for (int64_t i = 0; i < addresses; ++i) {
    Pattern address(static_cast<size_t>(bits));
    for (int8_t& bit : address) bit = rng.below(2) ? 1 : -1;
    addresses_.push_back(packed(address));
  }
}

DistributedMemory::Words DistributedMemory::packed(const Pattern& pattern) {
  Words words((pattern.size() + 63) / 64);
  for (size_t i = 0; i < pattern.size(); ++i)
    if (pattern[i] > 0) words[i / 64] |= uint64_t{1} << i % 64;
  return words;
}

bool DistributedMemory::near(const Words& address, const Words& at) const {
  int64_t apart = 0;
  for (size_t i = 0; i < address.size(); ++i) apart += std::popcount(address[i] ^ at[i]);
  return apart <= radius_;
}

void DistributedMemory::write(const Pattern& at, const Pattern& value) {
  const Words words = packed(at);
  for (size_t a = 0; a < addresses_.size(); ++a)
    if (near(addresses_[a], words))
      for (size_t i = 0; i < value.size(); ++i) sums_[a][i] += value[i];
}

std::vector<int64_t> DistributedMemory::read(const Pattern& at) const {
  const Words words = packed(at);
  std::vector<int64_t> sum(static_cast<size_t>(bits_));
  for (size_t a = 0; a < addresses_.size(); ++a)
    if (near(addresses_[a], words))
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += sums_[a][i];
  return sum;
}

int64_t DistributedMemory::within(const Pattern& a, const Pattern& b) const {
  const Words first = packed(a), second = packed(b);
  return std::count_if(addresses_.begin(), addresses_.end(),
                       [&](const Words& address) { return near(address, first) && near(address, second); });
}

}  // namespace sennit::mixers
