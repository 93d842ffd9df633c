#include "decoding/score.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sennit {

TokenScore score(std::span<const float> logits, int32_t token, int64_t top) {
  double most = -INFINITY, sum = 0;
  for (const float x : logits) most = std::fmax(most, x);
  for (const float x : logits) sum += std::exp(x - most);
  const double total = most + std::log(sum);
  TokenScore s{.token = token, .log_probability = logits[static_cast<size_t>(token)] - total};
  if (top <= 0) return s;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min<int64_t>(top, std::ssize(order));
  std::partial_sort(order.begin(), end, order.end(), [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  for (auto at = order.begin(); at != end; ++at) s.top.emplace_back(*at, logits[static_cast<size_t>(*at)] - total);
  return s;
}

}  // namespace sennit
