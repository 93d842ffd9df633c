#include <cmath>

#include "io/block_codes.h"

namespace sennit::io::block_codes {
namespace {

constexpr int kSteps = 8;          // candidates to either side of the plain scale
constexpr float kStepSize = 0.1f;  // in levels

// Squared error of the best m for a fixed d, and that of the best (d, m) for the levels that d gives.
struct Fit {
  double error;
  Affine affine;
};

Fit fit_levels(const float* x, const float* w, int n, int high, Affine start, bool below) {
  double sum = 0, q1 = 0, q2 = 0, x1 = 0, xq = 0, x2 = 0;
  for (int i = 0; i < n; ++i) {
    const double k = w ? w[i] : 1, q = level(x[i] - start.minimum, start.scale, 0, high);
    sum += k, q1 += k * q, q2 += k * q * q, x1 += k * x[i], xq += k * x[i] * q, x2 += k * x[i] * x[i];
  }
  const double det = sum * q2 - q1 * q1;
  double d = 0, m = 0;
  if (det > 0) d = (sum * xq - q1 * x1) / det, m = (x1 * q2 - q1 * xq) / det;
  if (det <= 0 || d < 0 || (below && m > 0)) {
    m = below ? std::min<double>(start.minimum, 0) : start.minimum;
    if (det > 0 && below && d >= 0) m = 0;
    d = q2 > 0 ? std::fmax((xq - m * q1) / q2, 0) : 0;
  }
  const double error = x2 - 2 * (d * xq + m * x1) + d * d * q2 + 2 * d * m * q1 + m * m * sum;
  return {error, {static_cast<float>(d), static_cast<float>(m)}};
}

}  // namespace

float best_scale(const float* x, const float* w, int n, int low, int high) {
  float extreme = 0;
  for (int i = 0; i < n; ++i)
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  if (extreme == 0) return 0;
  double most = -1;
  float best = 0;
  for (int side = 0; side < 2; ++side)
    for (int step = -kSteps; step <= kSteps; ++step) {
      const float end = side ? static_cast<float>(high) : static_cast<float>(low);
      const float scale = extreme / (end + (side ? kStepSize : -kStepSize) * static_cast<float>(step));
      double xq = 0, q2 = 0;
      for (int i = 0; i < n; ++i) {
        const double k = w ? w[i] : 1, q = level(x[i], scale, low, high);
        xq += k * x[i] * q, q2 += k * q * q;
      }
      // The best d for these levels is xq / q2, and takes xq^2 / q2 off the error of d = 0.
      if (q2 > 0 && xq * xq > most * q2) most = xq * xq / q2, best = static_cast<float>(xq / q2);
    }
  return best;
}

Affine best_affine(const float* x, const float* w, int n, int high, bool below) {
  const auto [smallest, largest] = std::minmax_element(x, x + n);
  const float low = below ? std::min(*smallest, 0.0f) : *smallest, range = *largest - low;
  if (!(range > 0)) return {0, low};
  Fit best{HUGE_VAL, {range / static_cast<float>(high), low}};
  for (int step = -kSteps; step <= kSteps; ++step) {
    const Affine start{range / (static_cast<float>(high) + kStepSize * static_cast<float>(step)), low};
    const Fit once = fit_levels(x, w, n, high, start, below), twice = fit_levels(x, w, n, high, once.affine, below);
    for (const Fit& fit : {once, twice})
      if (fit.error < best.error && fit.affine.scale > 0) best = fit;
  }
  return best.affine;
}

}  // namespace sennit::io::block_codes
