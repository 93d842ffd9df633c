#include "sequence/whole.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/elementwise.h"
#include "ops/count.h"
#include "products/product.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

using Segments = Pooled<Segment>;

// Calls body(segment, first, width) for runs of channels of each sequence: channels do not meet, so that the runs may
// go anywhere.
template <class Body>
void each_run(const Segments& segments, int64_t channels, const Body& body) {
  constexpr int64_t kRun = 64;
  const int64_t runs = (channels + kRun - 1) / kRun;
  parallel_for(std::ssize(segments) * runs, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t first = i % runs * kRun;
      body(segments[static_cast<size_t>(i / runs)], first, std::min(kRun, channels - first));
    }
  });
}

// Adds to every row of `y` the sum of its sequence's rows of x.
void add_sums(const Tensor& x, const Segments& segments, Tensor& y) {
  const int64_t width = x.row_size();
  const auto add = kernels::elementwise().add;
  each_run(segments, width, [&](const Segment& s, int64_t first, int64_t n) {
    std::vector<float> sum(static_cast<size_t>(n), 0.0f);
    const auto at = [&](int64_t t) { return t * width + first; };
    for (int64_t t = s.begin; t < s.begin + s.length; ++t) add(sum.data(), x.data() + at(t), sum.data(), n);
    for (int64_t t = s.begin; t < s.begin + s.length; ++t) add(y.data() + at(t), sum.data(), y.data() + at(t), n);
  });
}

// Calls body(sequence, row, its share of the sequence).
template <class Body>
void add_shares(std::span<const Segment> segments, const Body& body) {
  parallel_for(std::ssize(segments), 16, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const Segment& s = segments[static_cast<size_t>(i)];
      for (int64_t row = s.begin; row < s.begin + s.length; ++row) body(i, row, 1 / static_cast<float>(s.length));
    }
  });
}

// y = exp(x - the channel's largest) / their sum.
void softmax_down(const Tensor& x, const Segments& segments, Tensor& y) {
  const int64_t width = x.row_size();
  const auto& k = kernels::elementwise();
  each_run(segments, width, [&](const Segment& s, int64_t first, int64_t n) {
    const auto at = [&](int64_t t) { return (s.begin + t) * width + first; };
    std::vector<float> top(static_cast<size_t>(n), -INFINITY), sum(top.size(), 0.0f);
    for (int64_t t = 0; t < s.length; ++t)
      for (int64_t c = 0; c < n; ++c) top[c] = std::max(top[c], x.data()[at(t) + c]);
    for (int64_t t = 0; t < s.length; ++t) {
      float* row = y.data() + at(t);
      for (int64_t c = 0; c < n; ++c) row[c] = x.data()[at(t) + c] - top[c];
      k.exp(row, row, n);
      k.add(sum.data(), row, sum.data(), n);
    }
    for (float& total : sum) total = 1 / total;
    for (int64_t t = 0; t < s.length; ++t) k.multiply(y.data() + at(t), sum.data(), y.data() + at(t), n);
  });
}

// dx += y (dy - sum_s y_s dy_s)
void softmax_gradient(const Tensor& y, const Tensor& dy, const Segments& segments, Tensor& dx) {
  const int64_t width = y.row_size();
  const auto& k = kernels::elementwise();
  each_run(segments, width, [&](const Segment& s, int64_t first, int64_t n) {
    const auto at = [&](int64_t t) { return (s.begin + t) * width + first; };
    std::vector<float> dot(static_cast<size_t>(n), 0.0f), apart(dot.size());
    for (int64_t t = 0; t < s.length; ++t) k.multiply_add(y.data() + at(t), dy.data() + at(t), dot.data(), n);
    for (int64_t t = 0; t < s.length; ++t) {
      for (int64_t c = 0; c < n; ++c) apart[c] = dy.data()[at(t) + c] - dot[c];
      k.multiply_add(y.data() + at(t), apart.data(), dx.data() + at(t), n);
    }
  });
}

// Products of the rows of each sequence and head.
struct Whole {
  Segments segments;
  int64_t heads;

  // `rows` rows of x from row `first` of the task's sequence, in the task's head.
  MatrixView part(const Tensor& x, int64_t task, int64_t first, int64_t rows, bool transposed) const {
    const Segment& s = segments[static_cast<size_t>(task / heads)];
    const int64_t width = x.row_size() / heads;
    const float* at = x.data() + (s.begin + first) * x.row_size() + task % heads * width;
    return transposed ? MatrixView{at, width, rows, x.row_size(), true} : MatrixView{at, rows, width, x.row_size()};
  }
  // sum_s a_s b_s^T [sequences heads, A, B], a run of rows after another so that both stay in the cache.
  Tensor sums(const Tensor& a, const Tensor& b) const {
    constexpr int64_t kRun = 1024;
    const int64_t tasks = std::ssize(segments) * heads, rows = a.row_size() / heads, width = b.row_size() / heads;
    Tensor y = Tensor::zeros({tasks, rows, width});
    each_task([&](int64_t i, int64_t length) {
      for (int64_t t = 0; t < length; t += kRun) {
        const int64_t n = std::min(kRun, length - t);
        multiply(part(a, i, t, n, true), part(b, i, t, n, false), y.data() + i * rows * width, width,
                 {.accumulate = true});
      }
    });
    return y;
  }
  // Adds to each row of `to` its row of x times its sequence's matrix, or the matrix's transpose.
  void add_rows(const Tensor& x, const Tensor& matrices, bool transposed, Tensor& to) const {
    const int64_t rows = matrices.shape(1), width = matrices.shape(2), stride = to.row_size();
    each_task([&](int64_t i, int64_t length) {
      const float* m = matrices.data() + i * rows * width;
      const MatrixView right = transposed ? MatrixView{m, width, rows, width, true} : MatrixView{m, rows, width, width};
      multiply(part(x, i, 0, length, false), right,
               to.data() + segments[static_cast<size_t>(i / heads)].begin * stride + i % heads * right.cols, stride,
               {.accumulate = true});
    });
  }
  template <class Body>
  void each_task(Body&& body) const {
    parallel_for(std::ssize(segments) * heads, 1, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i)
        if (const int64_t length = segments[static_cast<size_t>(i / heads)].length) body(i, length);
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

Var sequence_means(const Var& x, std::span<const Segment> segments) {
  const int64_t width = x.columns();
  Tensor y = Tensor::zeros({std::ssize(segments), width});
  count_flops(x.value().elements());
  add_shares(segments, [&](int64_t i, int64_t row, float share) {
    kernels::elementwise().axpy(share, x.value().data() + row * width, y.data() + i * width, width);
  });
  return record(std::move(y), {x},
                [width, kept = Segments(segments.begin(), segments.end())](std::span<const Tensor> dy, Gradients& into) {
                  Tensor& dx = into.sum(0);
                  count_flops(dx.elements());
                  add_shares(kept, [&](int64_t i, int64_t row, float share) {
                    kernels::elementwise().axpy(share, dy[0].data() + i * width, dx.data() + row * width, width);
                  });
                });
}

Var sequence_softmax(const Var& x, std::span<const Segment> segments) {
  Tensor y(x.shape());
  const Segments kept(segments.begin(), segments.end());
  count_flops(4 * y.elements());
  softmax_down(x.value(), kept, y);
  return record(y, {x}, [kept, y](std::span<const Tensor> dy, Gradients& into) {
    count_flops(5 * y.elements());
    softmax_gradient(y, dy[0], kept, into.sum(0));
  });
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
