#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

// Plain loops in double, the definitions that the fast forms are held against. Nothing here uses the engine's
// operations.
namespace sennit::naive {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<double> a;

  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), a(static_cast<size_t>(r * c), 0.0) {}
  double& operator()(int64_t i, int64_t j) { return a[static_cast<size_t>(i * cols + j)]; }
  double operator()(int64_t i, int64_t j) const { return a[static_cast<size_t>(i * cols + j)]; }
};

using Weights = std::map<std::string, Matrix>;  // vectors are [1, n]

double sigmoid(double x);
double silu(double x);
double softplus(double x);
double activation(const std::string& name,
                  double x);  // silu, gelu, gelu_erf, relu, relu2, tanh, sigmoid, elu (1 + elu), none

// x W^T + b under `name`.weight and, when it is there, `name`.bias
Matrix linear(const Matrix& x, const Weights& w, const std::string& name);
// Groups of columns divided by their root mean square; times w when it is not null (shared or row-long).
Matrix rmsnorm(const Matrix& x, int64_t groups, double epsilon, const Matrix* w);
Matrix l2norm(const Matrix& x, int64_t groups, double epsilon);
// Groups of columns less their mean, divided by their deviation; times w plus b, which are row-long.
Matrix layernorm(const Matrix& x, int64_t groups, double epsilon, const Matrix& w, const Matrix& b);
// The row before each; `state` holds the last row, in and out.
Matrix token_shift(const Matrix& x, Matrix& state);
// Causal depthwise convolution with silu, under `name`.weight [C, W]; `state` holds the last W - 1 inputs, in and out.
Matrix short_conv(const Matrix& x, const Weights& w, const std::string& name, Matrix& state);

}  // namespace sennit::naive
