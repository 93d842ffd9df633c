#include "measure/non_negative.h"

#include <cmath>
#include <optional>

#include "base/error.h"

namespace sennit::measure {
namespace {

using Rows = std::span<const std::vector<double>>;

// Least squares over some columns by elimination of the normal equations; none where they depend on each other.
std::optional<std::vector<double>> solve(Rows rows, std::span<const double> b, const std::vector<size_t>& columns) {
  const size_t n = columns.size();
  std::vector<std::vector<double>> m(n, std::vector<double>(n + 1));
  for (size_t i = 0; i < n; ++i)
    for (size_t r = 0; r < rows.size(); ++r) {
      for (size_t j = 0; j < n; ++j) m[i][j] += rows[r][columns[i]] * rows[r][columns[j]];
      m[i][n] += rows[r][columns[i]] * b[r];
    }
  for (size_t c = 0; c < n; ++c) {
    const double before = m[c][c];
    for (size_t k = 0; k < c; ++k) {
      const double times = m[c][k];
      for (size_t j = k; j <= n; ++j) m[c][j] -= times * m[k][j];
    }
    if (!(m[c][c] > 1e-12 * before)) return std::nullopt;
    const double pivot = m[c][c];
    for (size_t j = c; j <= n; ++j) m[c][j] /= pivot;
  }
  std::vector<double> x(n);
  for (size_t i = n; i-- > 0;) {
    x[i] = m[i][n];
    for (size_t j = i + 1; j < n; ++j) x[i] -= m[i][j] * x[j];
  }
  return x;
}

}  // namespace

NonNegativeFit fit_non_negative(Rows rows, std::span<const double> b) {
  SENNIT_CHECK(rows.size() == b.size());
  NonNegativeFit best;
  if (rows.empty()) return best;
  const size_t width = rows[0].size();
  SENNIT_CHECK(width <= 10);
  best.residual = INFINITY;
  for (size_t set = 0; set < size_t{1} << width; ++set) {
    std::vector<size_t> columns;
    for (size_t c = 0; c < width; ++c)
      if (set >> c & 1) columns.push_back(c);
    const auto some = solve(rows, b, columns);
    if (!some) continue;
    std::vector<double> x(width);
    bool below = false;
    for (size_t i = 0; i < columns.size(); ++i) x[columns[i]] = (*some)[i], below |= (*some)[i] < 0;
    if (below) continue;
    double residual = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
      double off = -b[r];
      for (size_t c = 0; c < width; ++c) off += rows[r][c] * x[c];
      residual += off * off;
    }
    if (residual < best.residual) best = {std::move(x), residual};
  }
  return best;
}

}  // namespace sennit::measure
