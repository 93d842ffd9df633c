#pragma once
#include <span>
#include <vector>

namespace sennit::measure {

// The x >= 0 of the least |A x - b|^2, by trying each set of columns that may differ from 0: exact, for a few columns.
// `rows` are those of A, all of one length of at most 10; an empty answer when A has no rows.
struct NonNegativeFit {
  std::vector<double> x;
  double residual = 0;  // |A x - b|^2
};
NonNegativeFit fit_non_negative(std::span<const std::vector<double>> rows, std::span<const double> b);

}  // namespace sennit::measure
