#include "sequence/whole.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/maps.h"
#include "products/product.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

using Segments = Pooled<Segment>;

// Adds to every row of `y` the sum of its sequence's rows of x.
void add_sums(const Tensor& x, const Segments& segments, Tensor& y) {
  const int64_t width = x.row_size();
  const auto add = kernels::elementwise().add;
  parallel_for(std::ssize(segments), 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const Segment& s = segments[static_cast<size_t>(i)];
      Tensor sum = Tensor::zeros({width});
      for (int64_t t = s.begin; t < s.begin + s.length; ++t) add(sum.data(), x.data() + t * width, sum.data(), width);
      for (int64_t t = s.begin; t < s.begin + s.length; ++t)
        add(y.data() + t * width, sum.data(), y.data() + t * width, width);
    }
  });
}

// The largest number of each channel of its sequence, at every row.
Tensor highest(const Tensor& x, std::span<const Segment> segments) {
  const int64_t width = x.row_size();
  Tensor y(x.shape());
  for (const Segment& s : segments) {
    if (!s.length) continue;
    float* top = y.data() + s.begin * width;
    std::copy_n(x.data() + s.begin * width, width, top);
    for (int64_t t = s.begin + 1; t < s.begin + s.length; ++t)
      for (int64_t c = 0; c < width; ++c) top[c] = std::max(top[c], x.data()[t * width + c]);
    for (int64_t t = s.begin + 1; t < s.begin + s.length; ++t) std::copy_n(top, width, y.data() + t * width);
  }
  return y;
}

// Products of the rows of each sequence and head.
struct Whole {
  Segments segments;
  int64_t heads;

  MatrixView part(const Tensor& x, int64_t task, bool transposed) const {
    const Segment& s = segments[static_cast<size_t>(task / heads)];
    const int64_t width = x.row_size() / heads;
    const float* at = x.data() + s.begin * x.row_size() + task % heads * width;
    return transposed ? MatrixView{at, width, s.length, x.row_size(), true}
                      : MatrixView{at, s.length, width, x.row_size()};
  }
  // sum_s a_s b_s^T [sequences heads, A, B]
  Tensor sums(const Tensor& a, const Tensor& b) const {
    const int64_t tasks = std::ssize(segments) * heads, rows = a.row_size() / heads, width = b.row_size() / heads;
    Tensor y = Tensor::zeros({tasks, rows, width});
    each_task([&](int64_t i) { multiply(part(a, i, true), part(b, i, false), y.data() + i * rows * width, width); });
    return y;
  }
  // Adds to each row of `to` its row of x times its sequence's matrix, or the matrix's transpose.
  void add_rows(const Tensor& x, const Tensor& matrices, bool transposed, Tensor& to) const {
    const int64_t rows = matrices.shape(1), width = matrices.shape(2), stride = to.row_size();
    each_task([&](int64_t i) {
      const float* m = matrices.data() + i * rows * width;
      const MatrixView right = transposed ? MatrixView{m, width, rows, width, true} : MatrixView{m, rows, width, width};
      multiply(part(x, i, false), right,
               to.data() + segments[static_cast<size_t>(i / heads)].begin * stride + i % heads * right.cols, stride,
               {.accumulate = true});
    });
  }
  template <class Body>
  void each_task(Body&& body) const {
    parallel_for(std::ssize(segments) * heads, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i)
        if (segments[static_cast<size_t>(i / heads)].length) body(i);
    });
  }
};

}  // namespace

Var sequence_sums(const Var& x, std::span<const Segment> segments) {
  Tensor y = Tensor::zeros(x.shape());
  const Segments kept(segments.begin(), segments.end());
  count_flops(2 * y.elements());
  add_sums(x.value(), kept, y);
  return record(std::move(y), {x}, [kept](std::span<const Tensor> dy, Gradients& into) {
    count_flops(2 * dy[0].elements());
    add_sums(dy[0], kept, into.sum(0));
  });
}

Var sequence_softmax(const Var& x, std::span<const Segment> segments) {
  const Var raised = exp(x - Var(highest(x.value(), segments)));
  return raised * exp(scale(log(sequence_sums(raised, segments)), -1));
}

Var whole_products(const Var& q, const Var& k, const Var& v, std::span<const Segment> segments, int64_t heads) {
  SENNIT_CHECK(q.shape() == k.shape() && q.rows() == v.rows() && q.columns() % heads == 0 && v.columns() % heads == 0,
               "whole_products: q {}, k {}, v {}", q.shape().str(), k.shape().str(), v.shape().str());
  const Whole whole{{segments.begin(), segments.end()}, heads};
  const int64_t flops = 4 * q.rows() * q.columns() * v.columns() / heads;
  count_flops(flops);
  const Tensor s = whole.sums(k.value(), v.value());
  Tensor y = Tensor::zeros(v.shape());
  whole.add_rows(q.value(), s, false, y);
  return record(std::move(y), {q, k, v},
                [=, q = q.value(), k = k.value(), v = v.value()](std::span<const Tensor> dy, Gradients& into) {
                  count_flops(2 * flops);
                  const Tensor ds = whole.sums(q, dy[0]);
                  if (into.wants(0)) whole.add_rows(dy[0], s, true, into.sum(0));
                  if (into.wants(1)) whole.add_rows(v, ds, true, into.sum(1));
                  if (into.wants(2)) whole.add_rows(k, ds, false, into.sum(2));
                });
}

}  // namespace sennit
