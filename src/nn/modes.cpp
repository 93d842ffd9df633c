#include "nn/modes.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"

namespace sennit {
namespace {

using Complex = std::complex<double>;

constexpr int64_t kSpare = 8;     // directions that are followed beyond those asked for
constexpr int kMostRounds = 100;  // of subspace iteration
constexpr double kSame = 1e-13;   // of the largest: numbers that rounding cannot tell
// Of a pole's size. A small one has a large weight, which tap 0 must take back.
constexpr double kNearest = 0.02, kFurthest = 1 - 1e-6;

struct Square {
  int64_t n;
  std::vector<double> a;
  explicit Square(int64_t size) : n(size), a(static_cast<size_t>(size * size)) {}
  double& operator()(int64_t i, int64_t j) { return a[static_cast<size_t>(i * n + j)]; }
};

// Columns side by side: element (i, c) at i * width + c.
struct Columns {
  int64_t rows, width;
  std::vector<double> a;
  Columns(int64_t r, int64_t w) : rows(r), width(w), a(static_cast<size_t>(r * w)) {}
  double& operator()(int64_t i, int64_t c) { return a[static_cast<size_t>(i * width + c)]; }
  double operator()(int64_t i, int64_t c) const { return a[static_cast<size_t>(i * width + c)]; }
};

Columns hankel_times(std::span<const double> h, const Columns& x) {
  Columns y(x.rows, x.width);
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t j = 0; j < x.rows; ++j) {
      const double tap = h[static_cast<size_t>(1 + i + j)];
      for (int64_t c = 0; c < x.width; ++c) y(i, c) += tap * x(j, c);
    }
  return y;
}

double product(const Columns& x, int64_t a, const Columns& y, int64_t b) {
  double sum = 0;
  for (int64_t i = 0; i < x.rows; ++i) sum += x(i, a) * y(i, b);
  return sum;
}

// Each column twice against those before it; one that depends on them becomes zeros.
void orthonormalise(Columns& x) {
  for (int64_t c = 0; c < x.width; ++c) {
    const double before = product(x, c, x, c);
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t b = 0; b < c; ++b) {
        const double along = product(x, b, x, c);
        for (int64_t i = 0; i < x.rows; ++i) x(i, c) -= along * x(i, b);
      }
    const double squares = product(x, c, x, c);
    const double size = squares > 1e-26 * before ? 1 / std::sqrt(squares) : 0;
    for (int64_t i = 0; i < x.rows; ++i) x(i, c) *= size;
  }
}

// Jacobi's rotations: the symmetric s becomes diagonal, its eigenvectors the columns of the result.
Columns diagonalise_symmetric(Square& s) {
  Columns v(s.n, s.n);
  for (int64_t i = 0; i < s.n; ++i) v(i, i) = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < s.n; ++i)
      for (int64_t j = 0; j < s.n; ++j) (i == j ? all : off) += s(i, j) * s(i, j);
    if (off <= 1e-30 * all) break;
    for (int64_t p = 0; p < s.n; ++p)
      for (int64_t q = p + 1; q < s.n; ++q) {
        const double angle = 0.5 * std::atan2(2 * s(p, q), s(p, p) - s(q, q)), c = std::cos(angle), e = std::sin(angle);
        const auto rotate = [&](double& x, double& y) {
          const double a = c * x + e * y, b = c * y - e * x;
          x = a, y = b;
        };
        for (int64_t i = 0; i < s.n; ++i) rotate(s(i, p), s(i, q)), rotate(v(i, p), v(i, q));
        for (int64_t i = 0; i < s.n; ++i) rotate(s(p, i), s(q, i));
      }
  }
  return v;
}

// The eigenvalues of the filter's Hankel matrix that are largest in size, and their vectors.
struct Directions {
  std::vector<double> values;
  Columns vectors;
};
Directions largest_directions(std::span<const double> h, int64_t count) {
  const int64_t n = std::ssize(h) / 2, width = std::min(n, count + kSpare);
  Columns q(n, width);
  const Rng rng(1);
  for (size_t i = 0; i < q.a.size(); ++i) q.a[i] = rng.normal_at(i);
  orthonormalise(q);
  std::vector<double> values(static_cast<size_t>(width));
  for (int round = 0; round < kMostRounds; ++round) {
    q = hankel_times(h, q);
    orthonormalise(q);
    const Columns hq = hankel_times(h, q);
    Square small(width);
    for (int64_t a = 0; a < width; ++a)
      for (int64_t b = 0; b < width; ++b) small(a, b) = product(q, a, hq, b);
    const Columns turn = diagonalise_symmetric(small);
    std::vector<int64_t> order(static_cast<size_t>(width));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return std::fabs(small(a, a)) > std::fabs(small(b, b)); });
    Columns next(n, width);
    double moved = 0;
    for (int64_t c = 0; c < width; ++c) {
      const int64_t from = order[static_cast<size_t>(c)];
      for (int64_t b = 0; b < width; ++b)
        for (int64_t i = 0; i < n; ++i) next(i, c) += q(i, b) * turn(b, from);
      double& value = values[static_cast<size_t>(c)];
      if (c < count) moved = std::max(moved, std::fabs(value - small(from, from)));
      value = small(from, from);
    }
    q = std::move(next);
    if (moved <= kSame * std::fabs(values[0])) break;
  }
  values.resize(static_cast<size_t>(std::min(count, width)));
  return {std::move(values), std::move(q)};
}

// right <- left^-1 right, by elimination with pivots.
void solve(Square& left, Square& right) {
  const int64_t n = left.n;
  for (int64_t k = 0; k < n; ++k) {
    int64_t pivot = k;
    for (int64_t i = k; i < n; ++i)
      if (std::fabs(left(i, k)) > std::fabs(left(pivot, k))) pivot = i;
    for (int64_t j = 0; j < n; ++j) std::swap(left(k, j), left(pivot, j)), std::swap(right(k, j), right(pivot, j));
    for (int64_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double share = left(i, k) / left(k, k);
      for (int64_t j = 0; j < n; ++j) left(i, j) -= share * left(k, j), right(i, j) -= share * right(k, j);
    }
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) right(i, j) /= left(i, i);
}

// The step of the balanced system of order d: what takes the space of the first rows to that of the next ones.
Square step_matrix(const Directions& of, int64_t d) {
  Square above(d), across(d);
  for (int64_t a = 0; a < d; ++a)
    for (int64_t b = 0; b < d; ++b)
      for (int64_t i = 0; i + 1 < of.vectors.rows; ++i) {
        above(a, b) += of.vectors(i, a) * of.vectors(i, b);
        across(a, b) += of.vectors(i, a) * of.vectors(i + 1, b);
      }
  solve(above, across);
  for (int64_t a = 0; a < d; ++a)
    for (int64_t b = 0; b < d; ++b)
      across(a, b) *= std::sqrt(std::fabs(of.values[static_cast<size_t>(b)] / of.values[static_cast<size_t>(a)]));
  return across;
}

// To zeros below the first subdiagonal, by elimination with pivots on both sides.
void make_hessenberg(Square& m) {
  for (int64_t k = 1; k + 1 < m.n; ++k) {
    int64_t pivot = k;
    for (int64_t i = k; i < m.n; ++i)
      if (std::fabs(m(i, k - 1)) > std::fabs(m(pivot, k - 1))) pivot = i;
    if (m(pivot, k - 1) == 0) continue;
    for (int64_t j = 0; j < m.n; ++j) std::swap(m(k, j), m(pivot, j));
    for (int64_t j = 0; j < m.n; ++j) std::swap(m(j, k), m(j, pivot));
    for (int64_t i = k + 1; i < m.n; ++i) {
      const double share = m(i, k - 1) / m(k, k - 1);
      for (int64_t j = 0; j < m.n; ++j) m(i, j) -= share * m(k, j);
      for (int64_t j = 0; j < m.n; ++j) m(j, k) += share * m(j, i);
    }
  }
}

// One step of QR with Wilkinson's shift on the rows and columns up to `last` of a Hessenberg matrix [n, n].
void qr_step(std::vector<Complex>& m, int64_t n, int64_t first, int64_t last, int round) {
  const auto at = [&](int64_t i, int64_t j) -> Complex& { return m[static_cast<size_t>(i * n + j)]; };
  const Complex a = at(last - 1, last - 1), b = at(last - 1, last), c = at(last, last - 1), d = at(last, last);
  const Complex half = (a - d) / 2.0, root = std::sqrt(half * half + b * c);
  Complex shift = d - b * c / (std::abs(half + root) > std::abs(half - root) ? half + root : half - root);
  if (round % 11 == 10 || !std::isfinite(std::abs(shift))) shift = d + std::abs(c);  // out of a circle
  std::vector<std::pair<double, Complex>> turns;
  for (int64_t i = first; i <= last; ++i) at(i, i) -= shift;
  for (int64_t k = first; k < last; ++k) {
    const Complex x = at(k, k), y = at(k + 1, k);
    const double size = std::hypot(std::abs(x), std::abs(y));
    const double cosine = size > 0 ? std::abs(x) / size : 1;
    const Complex sine = size == 0 ? 0 : std::abs(x) > 0 ? x / std::abs(x) * std::conj(y) / size : std::conj(y) / size;
    turns.emplace_back(cosine, sine);
    for (int64_t j = k; j <= last; ++j) {
      const Complex u = at(k, j), v = at(k + 1, j);
      at(k, j) = cosine * u + sine * v, at(k + 1, j) = cosine * v - std::conj(sine) * u;
    }
  }
  for (int64_t k = first; k < last; ++k) {
    const auto [cosine, sine] = turns[static_cast<size_t>(k - first)];
    for (int64_t i = first; i <= std::min(k + 1, last); ++i) {
      const Complex u = at(i, k), v = at(i, k + 1);
      at(i, k) = cosine * u + std::conj(sine) * v, at(i, k + 1) = cosine * v - sine * u;
    }
  }
  for (int64_t i = first; i <= last; ++i) at(i, i) += shift;
}

std::vector<Complex> eigenvalues(Square of) {
  make_hessenberg(of);
  const int64_t n = of.n;
  std::vector<Complex> m(of.a.begin(), of.a.end()), found;
  const auto at = [&](int64_t i, int64_t j) { return m[static_cast<size_t>(i * n + j)]; };
  int round = 0;
  for (int64_t last = n - 1; last >= 0;) {
    int64_t first = last;
    while (first > 0 &&
           std::abs(at(first, first - 1)) > 1e-15 * (std::abs(at(first, first)) + std::abs(at(first - 1, first - 1))))
      --first;
    if (first == last || round > 300) {
      found.push_back(at(last, last));
      --last, round = 0;
    } else {
      qr_step(m, n, first, last, round++);
    }
  }
  return found;
}

// The weights of poles that leave the least squares at taps 1 to the last, by orthogonal columns.
std::vector<Complex> fitted_weights(std::span<const double> h, const std::vector<Complex>& poles) {
  std::vector<std::vector<double>> columns;
  const size_t taps = h.size() - 1;
  for (const Complex& l : poles) {
    std::vector<double> re, im;
    Complex power = 1;
    for (size_t t = 0; t < taps; ++t) power *= l, re.push_back(power.real()), im.push_back(-power.imag());
    columns.push_back(re);
    if (l.imag() != 0) columns.push_back(im);
  }
  const size_t n = columns.size();
  std::vector<double> rest(h.begin() + 1, h.end()), r(n * n), along(n), x(n);
  const auto dot = [](const auto& a, const auto& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); };
  const auto take = [&](std::vector<double>& from, const std::vector<double>& unit) {
    const double size = dot(from, unit);
    for (size_t t = 0; t < taps; ++t) from[t] -= size * unit[t];
    return size;
  };
  for (size_t c = 0; c < n; ++c) {
    const double before = std::sqrt(dot(columns[c], columns[c]));
    for (int pass = 0; pass < 2; ++pass)
      for (size_t b = 0; b < c; ++b) r[b * n + c] += take(columns[c], columns[b]);
    const double size = std::sqrt(dot(columns[c], columns[c]));
    r[c * n + c] = size > kSame * before ? size : 0;  // a column that depends on those before gets no weight
    for (double& v : columns[c]) v = r[c * n + c] > 0 ? v / size : 0;
    along[c] = take(rest, columns[c]);
    along[c] += take(rest, columns[c]);
  }
  for (size_t c = n; c-- > 0;) {
    for (size_t b = c + 1; b < n; ++b) along[c] -= r[c * n + b] * x[b];
    x[c] = r[c * n + c] > 0 ? along[c] / r[c * n + c] : 0;
  }
  std::vector<Complex> weights;
  size_t c = 0;
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
  std::vector<double> values = largest_directions(h, count).values;
  for (double& v : values) v = std::fabs(v);
  return values;
}

Modes fit_modes(std::span<const double> h, int64_t order, double tolerance) {
  const Directions directions = largest_directions(h, order + 1);
  const auto size = [&](int64_t i) { return std::fabs(directions.values[static_cast<size_t>(i)]); };
  int64_t d = 0;
  while (d < std::min(order, std::ssize(directions.values)) && d + 1 < directions.vectors.rows &&
         size(d) > std::max(tolerance, kSame) * size(0))
    ++d;
  Modes modes;
  if (d == 0) return modes;
  for (Complex l : eigenvalues(step_matrix(directions, d))) {
    if (std::fabs(l.imag()) <= 1e-9 * std::abs(l)) l = l.real();
    if (l.imag() < 0) continue;
    const double size_of_pole = std::abs(l);
    modes.poles.push_back(size_of_pole > 0 ? l * (std::clamp(size_of_pole, kNearest, kFurthest) / size_of_pole)
                                           : kNearest);
  }
  modes.weights = fitted_weights(h, modes.poles);
  return modes;
}

}  // namespace sennit
