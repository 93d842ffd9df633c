#include "nn/naive_sequence.h"

#include <algorithm>
#include <cmath>

#include "sequence/state.h"

namespace sennit::naive {

Matrix with_kept(Matrix& kept, const Matrix& more, int64_t window) {
  kept.cols = more.cols;
  kept.rows += more.rows;
  kept.a.insert(kept.a.end(), more.a.begin(), more.a.end());
  const Matrix all = kept;
  if (const int64_t drop = window ? rows_dropped(kept.rows, window) : 0) {
    kept.a.erase(kept.a.begin(), kept.a.begin() + drop * kept.cols);
    kept.rows -= drop;
  }
  return all;
}

Matrix long_conv(const Matrix& x, const Matrix& h, Matrix& state) {
  const Matrix all = with_kept(state, x, h.rows);
  const int64_t past = all.rows - x.rows;
  Matrix y(x.rows, x.cols);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t k = 0; k < h.rows && k <= past + t; ++k)
      for (int64_t c = 0; c < x.cols; ++c) y(t, c) += h(k, c) * all(past + t - k, c);
  return y;
}

Matrix plain_conv(const Matrix& x, const Matrix& h, Matrix& state) {
  const int64_t past = h.cols - 1;
  if (!state.rows) state = Matrix(past, x.cols);
  Matrix kept = state, y(x.rows, x.cols);
  const Matrix all = with_kept(kept, x);
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t c = 0; c < x.cols; ++c)
      for (int64_t j = 0; j <= past; ++j) y(t, c) += h(c, j) * all(t + j, c);
  for (int64_t i = 0; i < past; ++i)
    for (int64_t c = 0; c < x.cols; ++c) state(i, c) = all(x.rows + i, c);
  return y;
}

Matrix reversed(const Matrix& x) {
  Matrix y(x.rows, x.cols);
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t c = 0; c < x.cols; ++c) y(i, c) = x(x.rows - 1 - i, c);
  return y;
}

Matrix columns(const Matrix& x, int64_t begin, int64_t count) {
  Matrix y(x.rows, count);
  for (int64_t i = 0; i < x.rows; ++i)
    for (int64_t c = 0; c < count; ++c) y(i, c) = x(i, begin + c);
  return y;
}

void softmax(std::vector<double>& scores) {
  double top = -INFINITY, total = 0;
  for (const double s : scores) top = std::max(top, s);
  for (double& s : scores) total += s = top == -INFINITY ? 0 : std::exp(s - top);
  for (double& s : scores) s = total > 0 ? s / total : 0;
}

Matrix attention(const Matrix& q, const Matrix& k, const Matrix& v, const AttentionView& view) {
  const int64_t dk = q.cols / view.heads, dv = v.cols / view.heads;
  Matrix y(q.rows, v.cols);
  std::vector<double> weights(static_cast<size_t>(k.rows));
  for (int64_t i = 0; i < q.rows; ++i)
    for (int64_t h = 0; h < view.heads; ++h) {
      for (int64_t j = 0; j < k.rows; ++j) {
        double s = 0;
        for (int64_t p = 0; p < dk; ++p) s += q(i, h * dk + p) * k(j, h * dk + p);
        weights[j] = view.causal && j > i + view.offset ? -INFINITY : s * view.scale;
      }
      softmax(weights);
      for (int64_t j = 0; j < k.rows; ++j)
        for (int64_t p = 0; p < dv; ++p) y(i, h * dv + p) += weights[j] * v(j, h * dv + p);
    }
  return y;
}

}  // namespace sennit::naive
