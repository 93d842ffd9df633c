#include "ops/products.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "kernels/loss.h"
#include "ops/count.h"
#include "ops/row_blocks.h"
#include "products/product.h"

namespace sennit {
namespace {

MatrixView view(const Tensor& t, bool transposed) {
  const int64_t r = t.rows(), c = t.row_size();
  return {t.data(), transposed ? c : r, transposed ? r : c, c, transposed};
}

// out (+)= a b
void product(const Tensor& a, bool ta, const Tensor& b, bool tb, Tensor& out, bool accumulate, Precision precision,
             const float* bias = nullptr) {
  const MatrixView va = view(a, ta), vb = view(b, tb);
  SENNIT_CHECK(va.cols == vb.rows, "product of {}{} and {}{}", a.shape().str(), ta ? "^T" : "", b.shape().str(), tb ? "^T" : "");
  count_flops(2 * va.rows * va.cols * vb.cols);
  multiply(va, vb, out.data(), vb.cols, {.precision = precision, .accumulate = accumulate, .bias = bias});
}

// The gradient of an input (+)= a b
void product_into(Gradients& into, int input, const Tensor& a, bool ta, const Tensor& b, bool tb, Precision precision) {
  bool holds;
  Tensor& sum = into.sum(input, holds);
  product(a, ta, b, tb, sum, holds, precision);
}

}  // namespace

Var matmul(const Var& a, const Var& b, MatmulOptions o) {
  const int64_t m = o.transpose_a ? a.columns() : a.rows(), n = o.transpose_b ? b.rows() : b.columns();
  Tensor y({m, n});
  product(a.value(), o.transpose_a, b.value(), o.transpose_b, y, false, o.precision);
  return record(std::move(y), {a, b}, [a = a.value(), b = b.value(), o](std::span<const Tensor> dys, Gradients& into) {
    const Tensor& dy = dys[0];
    if (into.wants(0)) {
      if (o.transpose_a) product_into(into, 0, b, o.transpose_b, dy, true, o.precision);
      else product_into(into, 0, dy, false, b, !o.transpose_b, o.precision);
    }
    if (into.wants(1)) {
      if (o.transpose_b) product_into(into, 1, dy, true, a, o.transpose_a, o.precision);
      else product_into(into, 1, a, !o.transpose_a, dy, false, o.precision);
    }
  });
}

Var linear(const Var& x, const Var& weight, const Var& bias, Precision precision) {
  Tensor y({x.rows(), weight.rows()});
  product(x.value(), false, weight.value(), true, y, false, precision, bias ? bias.value().data() : nullptr);
  return record(std::move(y), {x, weight, bias},
                [x = x.value(), w = weight.value(), shape = bias.shape(), precision](std::span<const Tensor> dys, Gradients& into) {
                  const Tensor& dy = dys[0];
                  if (into.wants(0)) product_into(into, 0, dy, false, w, false, precision);
                  if (into.wants(1)) product_into(into, 1, dy, true, x, false, precision);
                  if (into.wants(2)) into.add(2, row_sum(dy).reshape(shape));
                });
}

namespace {

// Rows whose logits are there at a time: the more, the less often the weight is laid out and its gradient gone through.
int64_t rows_together(int64_t vocab) {
  constexpr int64_t kLogits = 4 << 20, kFewest = 256, kMost = 2048;
  return std::clamp(kLogits / vocab / kFewest * kFewest, kFewest, kMost);
}

// The losses of some rows; logits [n, V] become their gradients times `factor` when it is not zero.
void row_losses(Tensor& logits, std::span<const int32_t> targets, float factor, float* losses) {
  const int64_t v = logits.row_size();
  count_flops(4 * logits.elements());
  parallel_for(static_cast<int64_t>(targets.size()), 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      float* row = logits.data() + i * v;
      const int32_t target = targets[i];
      losses[i] = 0;
      if (target < 0) std::memset(row, 0, v * sizeof(float));
      else if (factor != 0) losses[i] = kernels::loss().cross_entropy_gradient(row, v, target, factor);
      else losses[i] = kernels::loss().cross_entropy(row, v, target);
    }
  });
}

}  // namespace

Var linear_cross_entropy(const Var& x, const Var& weight, std::span<const int32_t> targets, Precision precision,
                         Tensor* losses) {
  const int64_t n = x.rows(), v = weight.rows(), together = rows_together(v);
  SENNIT_CHECK(static_cast<int64_t>(targets.size()) == n, "{} targets for {}", targets.size(), x.shape().str());
  const auto count = std::count_if(targets.begin(), targets.end(), [](int32_t t) { return t >= 0; });
  for (const int32_t t : targets)
    if (t >= v) fail({"cross entropy", fmt::format("targets below {}", v), std::to_string(t), ""});
  const Var inputs[] = {x, weight};
  const bool wanted = any_needs_grad(inputs);
  const float factor = wanted && count ? 1.0f / static_cast<float>(count) : 0;
  Tensor dx, dw, each({n});
  if (wanted) dx = Tensor(x.shape()), dw = Tensor::zeros(weight.shape());
  for (int64_t at = 0; at < n; at += together) {
    const int64_t rows = std::min(together, n - at);
    const Tensor part = x.value().slice(at, rows);
    Tensor logits({rows, v});
    product(part, false, weight.value(), true, logits, false, precision);
    row_losses(logits, targets.subspan(at, rows), factor, each.data() + at);
    if (!wanted) continue;
    Tensor d_part = dx.slice(at, rows);
    product(logits, false, weight.value(), false, d_part, false, precision);
    product(logits, true, part, false, dw, true, precision);
  }
  Tensor y({1});
  y.data()[0] = count ? static_cast<float>(kernels::elementwise().sum(each.data(), n) / static_cast<double>(count)) : 0;
  if (losses) *losses = each;
  return record(std::move(y), inputs, [dx, dw](std::span<const Tensor> dy, Gradients& into) {
    const float s = dy[0].data()[0];
    auto scaled = [&](Tensor t) {
      if (s != 1)
        parallel_for(t.elements(), 1 << 15, [&](int64_t b, int64_t e) {
          kernels::elementwise().affine(t.data() + b, s, 0, t.data() + b, e - b);
        });
      return t;
    };
    if (into.wants(0)) into.add(0, scaled(dx));
    if (into.wants(1)) into.add(1, scaled(dw));
  });
}

}  // namespace sennit
