#include "nn/modes.h"

#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"

namespace sennit {
namespace {

using Complex = std::complex<double>;
using Matrix = Eigen::MatrixXd;
using Vector = Eigen::VectorXd;

constexpr int64_t kSpare = 8;     // directions that are followed beyond those asked for
constexpr int kMostRounds = 100;  // of subspace iteration
constexpr double kSame = 1e-13;   // of the largest: numbers that rounding cannot tell
// Of a pole's size. A small one has a large weight, which tap 0 must take back.
constexpr double kNearest = 0.02, kFurthest = 1 - 1e-6;

Matrix orthonormal(const Matrix& x) {
  return Eigen::HouseholderQR<Matrix>(x).householderQ() * Matrix::Identity(x.rows(), x.cols());
}

// The eigenvalues of the filter's Hankel matrix that are largest in size, and their vectors, by subspace iteration: a
// few of a matrix that may be thousands wide.
struct Directions {
  Vector values;
  Matrix vectors;
};
Directions largest_directions(std::span<const double> h, int64_t count) {
  const int64_t n = std::ssize(h) / 2, width = std::min(n, count + kSpare);
  const Matrix hankel = Matrix::NullaryExpr(n, n, [&](int64_t i, int64_t j) { return h[1 + i + j]; });
  const Rng rng(1);
  Matrix q =
      orthonormal(Matrix::NullaryExpr(n, width, [&](int64_t i, int64_t c) { return rng.normal_at(i * width + c); }));
  Vector values = Vector::Zero(width);
  for (int round = 0; round < kMostRounds; ++round) {
    q = orthonormal(hankel * q);
    const Eigen::SelfAdjointEigenSolver<Matrix> small(q.transpose() * (hankel * q));
    std::vector<int64_t> order(width);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return std::fabs(small.eigenvalues()[a]) > std::fabs(small.eigenvalues()[b]);
    });
    const Vector next = small.eigenvalues()(order);
    q = q * small.eigenvectors()(Eigen::all, order);
    const double moved = (next - values).head(std::min(count, width)).lpNorm<Eigen::Infinity>();
    values = next;
    if (moved <= kSame * std::fabs(values[0])) break;
  }
  return {values.head(std::min(count, width)), q};
}

// The step of the balanced system of order d: what takes the space of the first rows to that of the next ones.
Matrix step_matrix(const Directions& of, int64_t d) {
  const auto space = of.vectors.leftCols(d);
  const Matrix step = space.topRows(space.rows() - 1).colPivHouseholderQr().solve(space.bottomRows(space.rows() - 1));
  const Vector roots = of.values.head(d).cwiseAbs().cwiseSqrt();
  return roots.cwiseInverse().asDiagonal() * step * roots.asDiagonal();
}

// The weights of poles that leave the least squares at taps 1 to the last; poles that say what others do get none.
std::vector<Complex> fitted_weights(std::span<const double> h, const std::vector<Complex>& poles, int64_t order) {
  const int64_t taps = std::ssize(h) - 1;
  Matrix turns(taps, order);
  int64_t c = 0;
  for (const Complex& l : poles) {
    Complex power = 1;
    for (int64_t t = 0; t < taps; ++t) {
      power *= l;
      turns(t, c) = power.real();
      if (l.imag() != 0) turns(t, c + 1) = -power.imag();
    }
    c += l.imag() != 0 ? 2 : 1;
  }
  const Vector x = turns.colPivHouseholderQr().solve(Eigen::Map<const Vector>(h.data() + 1, taps));
  std::vector<Complex> weights;
  c = 0;
  for (const Complex& l : poles) {
    weights.emplace_back(x[c], l.imag() != 0 ? x[c + 1] : 0);
    c += l.imag() != 0 ? 2 : 1;
  }
  return weights;
}

}  // namespace

int64_t Modes::order() const {
  int64_t n = 0;
  for (const Complex& l : poles) n += l.imag() != 0 ? 2 : 1;
  return n;
}

double Modes::tap(int64_t t) const {
  double sum = 0;
  for (size_t m = 0; m < poles.size(); ++m) sum += (weights[m] * std::pow(poles[m], static_cast<double>(t))).real();
  return sum;
}

std::vector<double> hankel_singular_values(std::span<const double> h, int64_t count) {
  const Vector values = largest_directions(h, count).values.cwiseAbs();
  return {values.begin(), values.end()};
}

Modes fit_modes(std::span<const double> h, int64_t order, double tolerance) {
  const Directions directions = largest_directions(h, order + 1);
  const Vector sizes = directions.values.cwiseAbs();
  const int64_t most = std::min({order, sizes.size(), directions.vectors.rows() - 1});
  int64_t d = 0;
  while (d < most && sizes[d] > std::max(tolerance, kSame) * sizes[0]) ++d;
  Modes modes;
  if (d == 0) return modes;
  const Eigen::EigenSolver<Matrix> solved(step_matrix(directions, d), false);
  for (Complex l : solved.eigenvalues()) {
    if (std::fabs(l.imag()) <= 1e-9 * std::abs(l)) l = l.real();
    if (l.imag() < 0) continue;
    const double size = std::abs(l);
    modes.poles.push_back(size > 0 ? l * (std::clamp(size, kNearest, kFurthest) / size) : kNearest);
  }
  modes.weights = fitted_weights(h, modes.poles, modes.order());
  return modes;
}

}  // namespace sennit
