#include "ops/norms.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/row_blocks.h"

namespace sennit {
namespace {

struct Grouped {
  int64_t rows, d;  // rows of d numbers, all groups of x one under the other
};

Grouped grouped(const char* who, const Var& x, int64_t groups) {
  SENNIT_CHECK(groups > 0 && x.columns() % groups == 0, "{}: {} groups of {}", who, groups, x.shape().str());
  return {x.rows() * groups, x.columns() / groups};
}

const float* data_or_null(const Tensor& t) { return t ? t.data() : nullptr; }

// A weight as long as the row, under more than one group, is applied after the norm.
bool spans_row(const Var& x, const Var& weight, int64_t groups) {
  return weight && groups > 1 && weight.value().elements() == x.columns();
}

}  // namespace

Var rmsnorm(const Var& x, const Var& weight, NormOptions o) {
  if (spans_row(x, weight, o.groups)) return multiply_row(rmsnorm(x, {}, o), weight);
  const auto [n, d] = grouped("rmsnorm", x, o.groups);
  if (weight) SENNIT_CHECK(weight.value().elements() == d, "rmsnorm: weight {} for {}", weight.shape().str(), d);
  Tensor y(x.shape()), inverse({n});
  count_flops(4 * y.elements());
  const float* w = data_or_null(weight.value());
  each_row_block(n, [&, d = d](int64_t, int64_t at, int64_t rows) {
    kernels::norm().rmsnorm(x.value().data() + at * d, w, rows, d, o.epsilon, y.data() + at * d, inverse.data() + at);
  });
  return record(std::move(y), {x, weight}, [x = x.value(), w = weight.value(), inverse, n = n, d = d](std::span<const Tensor> dy, Gradients& into) {
    const bool wanted = into.wants(1);
    Tensor partial = wanted ? Tensor::zeros({row_blocks(n), d}) : Tensor();
    const kernels::Sum dx = into.first_sum();
    count_flops(8 * x.elements());
    each_row_block(n, [&](int64_t i, int64_t at, int64_t rows) {
      kernels::norm().rmsnorm_gradient(x.data() + at * d, data_or_null(w), inverse.data() + at, dy[0].data() + at * d, rows, d,
                                       dx.from(at * d), wanted ? partial.data() + i * d : nullptr);
    });
    if (wanted) add_blocks(partial, into.sum(1));
  });
}

Var layernorm(const Var& x, const Var& weight, const Var& bias, NormOptions o) {
  if (spans_row(x, weight, o.groups)) {
    const Var y = multiply_row(layernorm(x, {}, {}, o), weight);
    return bias ? add_row(y, bias) : y;
  }
  const auto [n, d] = grouped("layernorm", x, o.groups);
  Tensor y(x.shape()), mean({n}), inverse({n});
  count_flops(6 * y.elements());
  each_row_block(n, [&, d = d](int64_t, int64_t at, int64_t rows) {
    kernels::norm().layernorm(x.value().data() + at * d, data_or_null(weight.value()), data_or_null(bias.value()), rows, d,
                              o.epsilon, y.data() + at * d, mean.data() + at, inverse.data() + at);
  });
  return record(std::move(y), {x, weight, bias},
                [x = x.value(), w = weight.value(), mean, inverse, n = n, d = d](std::span<const Tensor> dy, Gradients& into) {
                  const int64_t blocks = row_blocks(n);
                  Tensor dw = into.wants(1) ? Tensor::zeros({blocks, d}) : Tensor();
                  Tensor db = into.wants(2) ? Tensor::zeros({blocks, d}) : Tensor();
                  const kernels::Sum dx = into.first_sum();
                  count_flops(10 * x.elements());
                  each_row_block(n, [&](int64_t i, int64_t at, int64_t rows) {
                    kernels::norm().layernorm_gradient(x.data() + at * d, data_or_null(w), mean.data() + at, inverse.data() + at,
                                                       dy[0].data() + at * d, rows, d, dx.from(at * d),
                                                       dw ? dw.data() + i * d : nullptr, db ? db.data() + i * d : nullptr);
                  });
                  if (dw) add_blocks(dw, into.sum(1));
                  if (db) add_blocks(db, into.sum(2));
                });
}

Var l2norm(const Var& x, NormOptions o) {
  const auto [n, d] = grouped("l2norm", x, o.groups);
  Tensor y(x.shape()), inverse({n});
  count_flops(3 * y.elements());
  each_row_block(n, [&, d = d](int64_t, int64_t at, int64_t rows) {
    kernels::norm().l2norm(x.value().data() + at * d, rows, d, o.epsilon, y.data() + at * d, inverse.data() + at);
  });
  return record(std::move(y), {x}, [x = x.value(), inverse, n = n, d = d](std::span<const Tensor> dy, Gradients& into) {
    const kernels::Sum dx = into.first_sum();
    count_flops(6 * x.elements());
    each_row_block(n, [&](int64_t, int64_t at, int64_t rows) {
      kernels::norm().l2norm_gradient(x.data() + at * d, inverse.data() + at, dy[0].data() + at * d, rows, d, dx.from(at * d));
    });
  });
}

Var softmax(const Var& x) {
  const int64_t n = x.rows(), d = x.columns();
  Tensor y(x.shape());
  count_flops(4 * y.elements());
  if (d) parallel_for(n, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) kernels::loss().softmax(x.value().data() + i * d, d, y.data() + i * d);
  });
  return record(y, {x}, [y, n, d](std::span<const Tensor> dy, Gradients& into) {
    const kernels::Sum dx = into.first_sum();
    count_flops(4 * y.elements());
    parallel_for(n, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i)
        kernels::loss().softmax_gradient(y.data() + i * d, dy[0].data() + i * d, d, dx.from(i * d));
    });
  });
}

}  // namespace sennit
