#pragma once
#include "nn/naive.h"

// Definitions of what crosses tokens in several mixers.
namespace sennit::naive {

// The rows of a growing state followed by `more`; `kept` is then what the state keeps of them (0: all).
Matrix with_kept(Matrix& kept, const Matrix& more, int64_t window = 0);
// y[t, c] = sum_k h[k, c] x[t - k, c] with what the state keeps of x before.
Matrix long_conv(const Matrix& x, const Matrix& h, Matrix& state);
// The same with h [C, W], oldest first, and the last W - 1 inputs as its state.
Matrix plain_conv(const Matrix& x, const Matrix& h, Matrix& state);
Matrix reversed(const Matrix& x);
Matrix columns(const Matrix& x, int64_t begin, int64_t count);
// The softmax of scores, in place; those of -inf count for nothing.
void softmax(std::vector<double>& scores);

// Queries over keys and values: row i sees keys 0 to i + offset, or all. q [n, H dk], k [m, H dk], v [m, H dv].
struct AttentionView {
  int64_t heads;
  double scale;
  bool causal;
  int64_t offset = 0;
};
Matrix attention(const Matrix& q, const Matrix& k, const Matrix& v, const AttentionView& view);

}  // namespace sennit::naive
