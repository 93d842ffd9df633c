#include "ops/arithmetic.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "kernels/elementwise.h"
#include "ops/count.h"
#include "ops/row_blocks.h"

namespace sennit {
namespace {

constexpr int64_t kGrain = 1 << 14;

void check_same(const char* who, const Var& a, const Var& b) {
  SENNIT_CHECK(a.shape() == b.shape(), "{}: {} and {}", who, a.shape().str(), b.shape().str());
}

// y[i] = body over ranges of the flat index.
template <class Body>
Tensor flat(const Shape& shape, Body&& body) {
  Tensor y(shape);
  float* out = y.data();
  count_flops(y.elements());
  parallel_for(y.elements(), kGrain, [&](int64_t b, int64_t e) { body(b, e, out); });
  return y;
}

Tensor scaled(const Tensor& x, float s, float shift = 0) {
  return flat(x.shape(), [&](int64_t b, int64_t e, float* y) {
    kernels::elementwise().affine(x.data() + b, s, shift, y + b, e - b);
  });
}

Tensor product(const Tensor& a, const Tensor& b) {
  return flat(a.shape(), [&](int64_t i, int64_t e, float* y) {
    kernels::elementwise().multiply(a.data() + i, b.data() + i, y + i, e - i);
  });
}

template <class Body>  // body(row index, pointer offset)
void each_row(int64_t n, int64_t d, Body&& body) {
  parallel_for(n, std::max<int64_t>(1, kGrain / std::max<int64_t>(d, 1)), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) body(i, i * d);
  });
}

Tensor row_product(const Tensor& x, const Tensor& row) {
  Tensor y(x.shape());
  count_flops(x.elements());
  const int64_t d = x.row_size();
  each_row(x.rows(), d, [&](int64_t, int64_t at) { kernels::elementwise().multiply(x.data() + at, row.data(), y.data() + at, d); });
  return y;
}

Tensor group_product(const Tensor& x, const Tensor& s) {
  Tensor y(x.shape());
  count_flops(x.elements());
  const int64_t groups = s.row_size(), d = groups ? x.row_size() / groups : 0;
  each_row(x.rows(), x.row_size(), [&](int64_t i, int64_t at) {
    for (int64_t g = 0; g < groups; ++g)
      kernels::elementwise().affine(x.data() + at + g * d, s.data()[i * groups + g], 0, y.data() + at + g * d, d);
  });
  return y;
}

// [N, G d] (times other when given) -> [N, G]
Tensor group_sum(const Tensor& x, int64_t groups, const Tensor& other = {}) {
  Tensor y({x.rows(), groups});
  count_flops(x.elements());
  const int64_t d = x.row_size() / groups;
  each_row(x.rows(), x.row_size(), [&](int64_t i, int64_t at) {
    for (int64_t g = 0; g < groups; ++g) {
      const float* p = x.data() + at + g * d;
      y.data()[i * groups + g] = other ? kernels::elementwise().dot(p, other.data() + at + g * d, d)
                                       : static_cast<float>(kernels::elementwise().sum(p, d));
    }
  });
  return y;
}

}  // namespace

Var add(const Var& a, const Var& b) {
  check_same("add", a, b);
  Tensor y = flat(a.shape(), [&](int64_t i, int64_t e, float* out) {
    kernels::elementwise().add(a.value().data() + i, b.value().data() + i, out + i, e - i);
  });
  return record(std::move(y), {a, b}, [](std::span<const Tensor> dy, Gradients& into) {
    into.add(0, dy[0]);
    into.add(1, dy[0]);
  });
}

Var subtract(const Var& a, const Var& b) { return add(a, scale(b, -1)); }

Var multiply(const Var& a, const Var& b) {
  check_same("multiply", a, b);
  return record(product(a.value(), b.value()), {a, b},
                [x = a.value(), y = b.value()](std::span<const Tensor> dy, Gradients& into) {
                  if (into.wants(0)) into.add(0, product(dy[0], y));
                  if (into.wants(1)) into.add(1, product(dy[0], x));
                });
}

Var affine(const Var& x, float s, float shift) {
  return record(scaled(x.value(), s, shift), {x},
                [s](std::span<const Tensor> dy, Gradients& into) { into.add(0, scaled(dy[0], s)); });
}

Var add_row(const Var& x, const Var& row) {
  SENNIT_CHECK(row.value().elements() == x.columns(), "add_row: {} to rows of {}", row.shape().str(), x.shape().str());
  Tensor y(x.shape());
  const int64_t d = x.columns();
  count_flops(y.elements());
  each_row(x.rows(), d, [&](int64_t, int64_t at) {
    kernels::elementwise().add(x.value().data() + at, row.value().data(), y.data() + at, d);
  });
  return record(std::move(y), {x, row}, [shape = row.shape()](std::span<const Tensor> dy, Gradients& into) {
    into.add(0, dy[0]);
    if (into.wants(1)) into.add(1, row_sum(dy[0]).reshape(shape));
  });
}

Var multiply_row(const Var& x, const Var& row) {
  SENNIT_CHECK(row.value().elements() == x.columns(), "multiply_row: {} to rows of {}", row.shape().str(), x.shape().str());
  return record(row_product(x.value(), row.value()), {x, row},
                [x = x.value(), r = row.value()](std::span<const Tensor> dy, Gradients& into) {
                  if (into.wants(0)) into.add(0, row_product(dy[0], r));
                  if (into.wants(1)) into.add(1, row_sum(dy[0], x).reshape(r.shape()));
                });
}

Var multiply_groups(const Var& x, const Var& s) {
  SENNIT_CHECK(s.rows() == x.rows() && s.columns() > 0 && x.columns() % s.columns() == 0, "multiply_groups: {} by {}",
               x.shape().str(), s.shape().str());
  return record(group_product(x.value(), s.value()), {x, s},
                [x = x.value(), s = s.value()](std::span<const Tensor> dy, Gradients& into) {
                  if (into.wants(0)) into.add(0, group_product(dy[0], s));
                  if (into.wants(1)) into.add(1, group_sum(x, s.row_size(), dy[0]).reshape(s.shape()));
                });
}

Var sum(const Var& x) {
  Tensor y({1});
  count_flops(x.value().elements());
  y.data()[0] = static_cast<float>(kernels::elementwise().sum(x.value().data(), x.value().elements()));
  return record(std::move(y), {x}, [shape = x.shape()](std::span<const Tensor> dy, Gradients& into) {
    into.add(0, Tensor::full(shape, dy[0].data()[0]));
  });
}

Var mean(const Var& x) { return scale(sum(x), 1.0f / static_cast<float>(x.value().elements())); }

Var sum_rows(const Var& x) {
  return record(row_sum(x.value()), {x}, [shape = x.shape()](std::span<const Tensor> dy, Gradients& into) {
    Tensor dx(shape);
    const int64_t d = dx.row_size();
    each_row(dx.rows(), d, [&](int64_t, int64_t at) { std::memcpy(dx.data() + at, dy[0].data(), d * sizeof(float)); });
    into.add(0, std::move(dx));
  });
}

Var sum_groups(const Var& x, int64_t groups) {
  SENNIT_CHECK(groups > 0 && x.columns() % groups == 0, "sum_groups: {} groups of {}", groups, x.shape().str());
  return record(group_sum(x.value(), groups), {x}, [shape = x.shape(), groups](std::span<const Tensor> dy, Gradients& into) {
    Tensor dx(shape);
    const int64_t d = dx.row_size() / groups;
    each_row(dx.rows(), dx.row_size(), [&](int64_t i, int64_t at) {
      for (int64_t g = 0; g < groups; ++g) std::fill_n(dx.data() + at + g * d, d, dy[0].data()[i * groups + g]);
    });
    into.add(0, std::move(dx));
  });
}

Var dropout(const Var& x, float p, uint64_t seed) {
  if (p <= 0) return x;
  const Rng rng(seed);
  const float keep = 1 / (1 - p);
  Tensor mask = flat(x.shape(), [&](int64_t b, int64_t e, float* y) {
    for (int64_t i = b; i < e; ++i) y[i] = rng.uniform_at(i) < p ? 0 : keep;
  });
  return multiply(x, Var(std::move(mask)));
}

}  // namespace sennit
