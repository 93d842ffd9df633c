#include "nn/naive.h"

#include <cmath>

#include "base/error.h"

namespace sennit::naive {

double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
double silu(double x) { return x * sigmoid(x); }
double softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }

double activation(const std::string& name, double x) {
  if (name == "silu") return silu(x);
  if (name == "gelu") return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  if (name == "gelu_erf") return 0.5 * x * std::erfc(-x / std::sqrt(2));
  if (name == "relu") return x > 0 ? x : 0;
  if (name == "relu2") return x > 0 ? x * x : 0;
  if (name == "tanh") return std::tanh(x);
  if (name == "sigmoid") return sigmoid(x);
  if (name == "elu") return x > 0 ? 1 + x : std::exp(x);
  SENNIT_CHECK(name == "none", "activation {}", name);
  return x;
}

Matrix linear(const Matrix& x, const Weights& w, const std::string& name) {
  const Matrix& m = w.at(name + ".weight");
  const auto b = w.find(name + ".bias");
  Matrix y(x.rows, m.rows);
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t j = 0; j < m.rows; ++j) {
      double s = b == w.end() ? 0 : b->second.a[j];
      for (int64_t p = 0; p < m.cols; ++p) s += x(i, p) * m(j, p);
      y(i, j) = s;
    }
  return y;
}

Matrix rmsnorm(const Matrix& x, int64_t groups, double epsilon, const Matrix* w) {
  Matrix y = x;
  const int64_t d = x.cols / groups;
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t g = 0; g < groups; ++g) {
      double square = 0;
      for (int64_t j = 0; j < d; ++j) square += x(i, g * d + j) * x(i, g * d + j);
      const double r = 1 / std::sqrt(square / static_cast<double>(d) + epsilon);
      for (int64_t j = 0; j < d; ++j) {
        const int64_t c = g * d + j;
        y(i, c) = x(i, c) * r * (w ? w->a[w->cols == x.cols ? c : j] : 1);
      }
    }
  return y;
}

Matrix l2norm(const Matrix& x, int64_t groups, double epsilon) {
  const double d = static_cast<double>(x.cols / groups);
  Matrix y = rmsnorm(x, groups, epsilon / d, nullptr);
  for (double& v : y.a) v /= std::sqrt(d);
  return y;
}

Matrix layernorm(const Matrix& x, int64_t groups, double epsilon, const Matrix& w, const Matrix& b) {
  Matrix y = x;
  const int64_t d = x.cols / groups;
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t g = 0; g < groups; ++g) {
      double mean = 0, square = 0;
      for (int64_t c = g * d; c < (g + 1) * d; ++c) mean += x(i, c) / static_cast<double>(d);
      for (int64_t c = g * d; c < (g + 1) * d; ++c) square += (x(i, c) - mean) * (x(i, c) - mean) / static_cast<double>(d);
      for (int64_t c = g * d; c < (g + 1) * d; ++c) y(i, c) = (x(i, c) - mean) / std::sqrt(square + epsilon) * w.a[c] + b.a[c];
    }
  return y;
}

Matrix token_shift(const Matrix& x, Matrix& state) {
  if (state.rows == 0) state = Matrix(1, x.cols);
  Matrix y(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t c = 0; c < x.cols; ++c) {
      y(t, c) = state(0, c);
      state(0, c) = x(t, c);
    }
  return y;
}

Matrix short_conv(const Matrix& x, const Weights& w, const std::string& name, Matrix& state) {
  const Matrix& m = w.at(name + ".weight");
  const auto bias = w.find(name + ".bias");
  const int64_t width = m.cols;
  if (state.rows == 0) state = Matrix(width - 1, x.cols);
  Matrix past(width - 1 + x.rows, x.cols), y(x.rows, x.cols);
  for (int64_t i = 0; i < past.rows; ++i)
    for (int64_t c = 0; c < x.cols; ++c) past(i, c) = i < width - 1 ? state(i, c) : x(i - width + 1, c);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t c = 0; c < x.cols; ++c) {
      double s = bias == w.end() ? 0 : bias->second.a[c];
      for (int64_t j = 0; j < width; ++j) s += m(c, j) * past(t + j, c);
      y(t, c) = silu(s);
    }
  for (int64_t i = 0; i < width - 1; ++i)
    for (int64_t c = 0; c < x.cols; ++c) state(i, c) = past(x.rows + i, c);
  return y;
}

}  // namespace sennit::naive
