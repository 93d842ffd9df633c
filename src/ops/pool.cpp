#include "ops/pool.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "ops/count.h"

namespace sennit {
namespace {

bool better(float a, float b, Pooling how) {
  return how == Pooling::highest ? a > b : a < b;
}

// The row of a run that a column takes its number from.
int64_t taken(const float* first, int64_t stride, int64_t run, Pooling how) {
  int64_t at = 0;
  for (int64_t r = 1; r < run; ++r)
    if (better(first[r * stride], first[at * stride], how)) at = r;
  return at;
}

void pool_run(const float* rows, int64_t run, int64_t d, Pooling how, float* y) {
  std::copy_n(rows, d, y);
  for (int64_t r = 1; r < run; ++r) {
    const float* row = rows + r * d;
    if (how == Pooling::mean)
      for (int64_t c = 0; c < d; ++c) y[c] += row[c];
    else
      for (int64_t c = 0; c < d; ++c) y[c] = better(row[c], y[c], how) ? row[c] : y[c];
  }
  if (how == Pooling::mean)
    for (int64_t c = 0; c < d; ++c) y[c] *= 1 / static_cast<float>(run);
}

}  // namespace

Var pool_runs(const Var& x, int64_t run, Pooling how) {
  SENNIT_CHECK(run > 0);
  const int64_t runs = x.rows() / run, d = x.columns();
  Tensor y({runs, d});
  const Tensor in = x.value();
  const float share = 1 / static_cast<float>(run);
  const float* from = in.data();
  float* to = y.data();
  parallel_for(runs, 16, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) pool_run(from + i * run * d, run, d, how, to + i * d);
  });
  count_flops(runs * run * d);
  return record(std::move(y), {x}, [in, run, how, share](std::span<const Tensor> dys, Gradients& into) {
    const int64_t rows = dys[0].rows(), width = in.row_size();
    float* dx = into.sum(0).data();
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t c = 0; c < width; ++c) {
        const float dy = dys[0].data()[i * width + c];
        const int64_t first = i * run * width + c;
        if (how == Pooling::mean)
          for (int64_t r = 0; r < run; ++r) dx[first + r * width] += share * dy;
        else
          dx[first + taken(in.data() + first, width, run, how) * width] += dy;
      }
  });
}

}  // namespace sennit
