#include "mixers/legendre.h"

#include <cmath>
#include <vector>

namespace sennit::mixers {
namespace {

using RealSquare = std::vector<double>;

RealSquare product(const RealSquare& x, const RealSquare& y, int64_t n) {
  RealSquare z(x.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t p = 0; p < n; ++p)
      for (int64_t j = 0; j < n; ++j) z[i * n + j] += x[i * n + p] * y[p * n + j];
  return z;
}

// By its series for a small share of the matrix, squared again and again.
RealSquare exponential(RealSquare x, int64_t n) {
  double size = 0;
  for (const double v : x) size += std::fabs(v);
  const int halvings = std::max(0, static_cast<int>(std::ceil(std::log2(size))) + 3);
  for (double& v : x) v = std::ldexp(v, -halvings);
  RealSquare sum(x.size()), term(x.size());
  for (int64_t i = 0; i < n; ++i) sum[i * n + i] = term[i * n + i] = 1;
  for (int k = 1; k <= 16; ++k) {
    term = product(term, x, n);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += term[i] /= k;
  }
  for (int i = 0; i < halvings; ++i) sum = product(sum, sum, n);
  return sum;
}

}  // namespace

LegendreSystem legendre_system(int64_t order, double theta) {
  // exp of [[A, B], [0, 0]] is [[exp A, (integral of exp A) B], [0, 1]].
  const int64_t n = order + 1;
  RealSquare x(static_cast<size_t>(n * n));
  for (int64_t i = 0; i < order; ++i) {
    const double scale = static_cast<double>(2 * i + 1) / theta;
    for (int64_t j = 0; j < order; ++j) x[i * n + j] = scale * (i < j || (i - j) % 2 == 0 ? -1 : 1);
    x[i * n + order] = scale * (i % 2 ? -1 : 1);
  }
  x = exponential(x, n);
  LegendreSystem s{Tensor({order, order}), Tensor({order})};
  for (int64_t i = 0; i < order; ++i) {
    for (int64_t j = 0; j < order; ++j) s.a.data()[i * order + j] = static_cast<float>(x[i * n + j]);
    s.b.data()[i] = static_cast<float>(x[i * n + order]);
  }
  return s;
}

double legendre_weight(int64_t i, double delay) {
  double before = 1, now = 2 * delay - 1;
  if (i == 0) return 1;
  for (int64_t k = 1; k < i; ++k) {
    const double next = ((2.0 * static_cast<double>(k) + 1) * (2 * delay - 1) * now - static_cast<double>(k) * before) /
                        static_cast<double>(k + 1);
    before = now, now = next;
  }
  return now;
}

}  // namespace sennit::mixers
