#include "ops/features.h"

#include <cmath>

#include "base/parallel.h"
#include "ops/count.h"

namespace sennit {
namespace {

constexpr float kSquare = 0.70710678118654752f;

template <class Body>  // body(a row's head in x, its features): for every row and head
void each_head_row(const Tensor& x, int64_t heads, const Body& body) {
  const int64_t d = x.row_size() / heads;
  parallel_for(x.rows() * heads, 64, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) body(i * d, i * taylor_count(d));
  });
}

}  // namespace

Var taylor_features(const Var& x, int64_t heads) {
  const int64_t d = x.columns() / heads;
  Tensor y({x.rows(), heads * taylor_count(d)});
  count_flops(y.elements());
  each_head_row(x.value(), heads, [&](int64_t from, int64_t to) {
    const float* a = x.value().data() + from;
    float* f = y.data() + to;
    *f++ = 1;
    for (int64_t i = 0; i < d; ++i) *f++ = a[i];
    for (int64_t i = 0; i < d; ++i) {
      *f++ = kSquare * a[i] * a[i];
      for (int64_t j = i + 1; j < d; ++j) *f++ = a[i] * a[j];
    }
  });
  return record(y, {x}, [x = x.value(), heads, d](std::span<const Tensor> dy, Gradients& into) {
    Tensor& dx = into.sum(0);
    count_flops(3 * dy[0].elements());
    each_head_row(x, heads, [&](int64_t from, int64_t to) {
      const float *a = x.data() + from, *df = dy[0].data() + to + 1;
      float* da = dx.data() + from;
      for (int64_t i = 0; i < d; ++i) da[i] += *df++;
      for (int64_t i = 0; i < d; ++i) {
        da[i] += 2 * kSquare * a[i] * *df++;
        for (int64_t j = i + 1; j < d; ++j, ++df) {
          da[i] += a[j] * *df;
          da[j] += a[i] * *df;
        }
      }
    });
  });
}

}  // namespace sennit
