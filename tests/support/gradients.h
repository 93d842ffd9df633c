#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "support/buffers.h"

namespace sennit {

// Expects `gradient` - `before` to be the gradient of `f` (in double) at x: central differences along a random
// direction and in a few coordinates. `tolerance` is relative to the gradient's root mean square in coordinates, to its
// length along the direction.
inline void expect_gradient(const std::string& name, const std::function<double(const std::vector<double>&)>& f,
                            const std::vector<double>& x, const Fenced& gradient, double tolerance, Rng& rng,
                            double before = 0) {
  ASSERT_TRUE(gradient.intact()) << name << " wrote past an end";
  const auto n = static_cast<int64_t>(x.size());
  if (n == 0) return;
  auto slope = [&](const std::vector<double>& direction) {
    const double h = 1e-5;
    std::vector<double> up = x, down = x;
    for (size_t i = 0; i < x.size(); ++i) up[i] += h * direction[i], down[i] -= h * direction[i];
    return (f(up) - f(down)) / (2 * h);
  };
  std::vector<double> direction(x.size());
  double length = 0, along = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double g = static_cast<double>(gradient[i]) - before;
    direction[i] = rng.normal();
    along += direction[i] * g;
    length += g * g;
  }
  length = std::sqrt(length);
  const double root = std::sqrt(static_cast<double>(n)),
               floor = 1e-7 + 2e-7 * before;  // what adding to `before` rounds
  EXPECT_NEAR(along, slope(direction), tolerance * length + floor * root) << name << " along a direction";
  for (int probe = 0; probe < 4; ++probe) {
    const int64_t i = rng.below(n);
    std::vector<double> unit(x.size());
    unit[i] = 1;
    EXPECT_NEAR(static_cast<double>(gradient[i]) - before, slope(unit),
                tolerance * (length / root + std::abs(slope(unit))) + floor)
        << name << " [" << i << "] of " << n;
  }
}

// For expect_gradient: sum_i d_i outputs(in)_i as a function of one of the inputs, whichever member it is.
template <class Inputs, class Outputs>
auto losses(const Inputs& in, const Outputs& outputs, const Fenced& d) {
  return [=, d = d.doubles()](std::vector<double> Inputs::*which) {
    return [=](const std::vector<double>& x) {
      Inputs at = in;
      at.*which = x;
      const std::vector<double> out = outputs(at);
      return std::inner_product(d.begin(), d.end(), out.begin(), 0.0);
    };
  };
}

}  // namespace sennit
