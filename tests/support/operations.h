#pragma once
#include <functional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "autograd/var.h"
#include "nn/naive.h"

// An operation on Vars beside its definition in plain loops in double and, where it is fused, beside the same thing put
// together from other operations. The tables of them are in ops_cases.h and sequence_cases.h.
namespace sennit {

using naive::Matrix;
using Matrices = std::vector<Matrix>;
using Vars = std::vector<Var>;

struct Operation {
  std::string name;
  std::function<std::vector<Shape>(int64_t n)> shapes;  // of its inputs, for n rows
  std::function<Vars(const Vars&)> apply;
  std::function<Matrices(const Matrices&)> definition;  // a vector is one row
  std::vector<std::pair<double, double>> ranges = {};   // of its inputs' numbers; -2 to 2 where none is given
  std::function<Vars(const Vars&)> composition = {};
  int64_t fewest = 0;  // rows
};
inline void PrintTo(const Operation& op, std::ostream* out) {
  *out << op.name;
}

inline Matrix to_matrix(const Tensor& t) {
  Matrix m(t.rank() > 1 ? t.rows() : 1, t.rank() > 1 ? t.row_size() : t.elements());
  for (int64_t i = 0; i < t.elements(); ++i) m.a[static_cast<size_t>(i)] = t.data()[i];
  return m;
}

template <class F>  // f(element of x)
Matrix mapped(Matrix x, F&& f) {
  for (double& v : x.a) v = f(v);
  return x;
}
template <class F>  // f(element of x, element of y)
Matrix zipped(Matrix x, const Matrix& y, F&& f) {
  for (size_t i = 0; i < x.a.size(); ++i) x.a[i] = f(x.a[i], y.a[i]);
  return x;
}
template <class F>  // f(row, column)
Matrix made(int64_t rows, int64_t cols, F&& f) {
  Matrix y(rows, cols);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < cols; ++j) y(i, j) = f(i, j);
  return y;
}

}  // namespace sennit
