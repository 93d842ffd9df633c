#include "mixers/hippo.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sennit::mixers {
namespace {

using Complex = std::complex<double>;
using Square = std::vector<Complex>;

// Jacobi's rotations: h [n, n] Hermitian becomes diagonal, v gathers the eigenvectors in its columns.
void diagonalise(Square& h, Square& v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) v[i * n + i] = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) (i == j ? all : off) += std::norm(h[i * n + j]);
    if (off <= 1e-28 * all) return;
    for (int64_t p = 0; p < n; ++p)
      for (int64_t q = p + 1; q < n; ++q) {
        const double size = std::abs(h[p * n + q]);
        if (size == 0) continue;
        const Complex turn = h[p * n + q] / size;
        const double angle = 0.5 * std::atan2(2 * size, h[p * n + p].real() - h[q * n + q].real());
        const double c = std::cos(angle), s = std::sin(angle);
        const auto rotate = [&](Complex& x, Complex& y, Complex phase) {
          const Complex a = c * x + s * std::conj(phase) * y, b = -s * phase * x + c * y;
          x = a, y = b;
        };
        // Columns by the rotation, rows by its conjugate transpose.
        for (int64_t i = 0; i < n; ++i) {
          rotate(h[i * n + p], h[i * n + q], turn);
          rotate(v[i * n + p], v[i * n + q], turn);
        }
        for (int64_t i = 0; i < n; ++i) rotate(h[p * n + i], h[q * n + i], std::conj(turn));
      }
  }
}

}  // namespace

Dplr hippo_legs(int64_t modes) {
  const int64_t n = 2 * modes;
  Square h(static_cast<size_t>(n * n)), v(h.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      const double k = 0.5 * std::sqrt(static_cast<double>((2 * i + 1) * (2 * j + 1)));
      h[i * n + j] =
          i == j ? Complex() : Complex(0, i > j ? k : -k);  // -i times the skew part, so that it is Hermitian
    }
  diagonalise(h, v, n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return h[a * n + a].real() < h[b * n + b].real(); });
  Dplr d;
  for (int64_t m = modes; m < n; ++m) {
    const int64_t column = order[m];
    Complex p, b;
    for (int64_t i = 0; i < n; ++i) {
      p += std::conj(v[i * n + column]) * std::sqrt(static_cast<double>(i) + 0.5);
      b += std::conj(v[i * n + column]) * std::sqrt(static_cast<double>(2 * i + 1));
    }
    d.lambda.emplace_back(-0.5, h[column * n + column].real());
    d.p.push_back(p);
    d.b.push_back(b);
  }
  return d;
}

}  // namespace sennit::mixers
