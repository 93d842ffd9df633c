#include "sequence/kronecker.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "ops/arithmetic.h"
#include "ops/count.h"
#include "ops/layout.h"
#include "ops/products.h"
#include "sequence/per_head.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

void check_operands(const KroneckerOperands& x, const KroneckerOptions& o) {
  SENNIT_CHECK(o.heads > 0 && x.q.columns() % o.heads == 0 && x.v1.columns() % o.heads == 0);
  SENNIT_CHECK(x.k1.shape() == x.q.shape() && x.k2.shape() == x.q.shape() && x.v1.shape() == x.v2.shape());
}

// One head of one segment: pointers to its first rows.
struct Head {
  const float *q, *k1, *k2, *v1, *v2;
  int64_t n, dk, dv, k_stride, v_stride;
  float scale;

  Head(const KroneckerOperands& x, const Segment& s, int64_t head, const KroneckerOptions& o)
      : n(s.length),
        dk(x.q.columns() / o.heads),
        dv(x.v1.columns() / o.heads),
        k_stride(x.q.columns()),
        v_stride(x.v1.columns()),
        scale(o.scale) {
    const int64_t k = s.begin * k_stride + head * dk, v = s.begin * v_stride + head * dv;
    q = x.q.value().data() + k, k1 = x.k1.value().data() + k, k2 = x.k2.value().data() + k;
    v1 = x.v1.value().data() + v, v2 = x.v2.value().data() + v;
  }
  // Scores of query i and the pairs of key j [n]; `turned` holds dk numbers.
  void scores(int64_t i, int64_t j, float* turned, float* to) const {
    for (int64_t p = 0; p < dk; ++p) turned[p] = scale * q[i * k_stride + p] * k1[j * k_stride + p];
    for (int64_t l = 0; l < n; ++l) {
      float sum = 0;
      for (int64_t p = 0; p < dk; ++p) sum += turned[p] * k2[l * k_stride + p];
      to[l] = sum;
    }
  }
};

// What backward wants of a query: ln of the sum of its exponentials. A running maximum, as in kernels/attention.h.
double forward_query(const Head& h, int64_t i, float* y, float* scratch) {
  float *const scores = scratch, *const inner = scratch + h.n;
  double total = 0;
  float top = -INFINITY;
  Pooled<double> sums(static_cast<size_t>(h.dv));
  for (int64_t j = 0; j < h.n; ++j) {  // the sum over l in float, that over j in double
    h.scores(i, j, inner, scores);
    const float highest = std::max(top, *std::max_element(scores, scores + h.n)), kept = std::exp(top - highest);
    top = highest;
    float weight = 0;
    std::fill_n(inner, h.dv, 0.0f);
    for (int64_t l = 0; l < h.n; ++l) {
      const float e = std::exp(scores[l] - top);
      weight += e;
      for (int64_t c = 0; c < h.dv; ++c) inner[c] += e * h.v2[l * h.v_stride + c];
    }
    total = total * kept + weight;
    for (int64_t c = 0; c < h.dv; ++c) sums[c] = sums[c] * kept + double{h.v1[j * h.v_stride + c]} * inner[c];
  }
  for (int64_t c = 0; c < h.dv; ++c) y[c] = static_cast<float>(sums[c] / total);
  return top + std::log(total);
}

// The gradients of a head's rows.
struct TripleGradients {
  float *q, *k1, *k2, *v1, *v2;
};

// p_jl = exp(s_jl - stat), and ds_jl = p_jl (sum_c dy_c v1_jc v2_lc - sum_c dy_c y_c).
void backward_query(const Head& h, int64_t i, const float* y, const float* dy, double stat, const TripleGradients& d,
                    float* scratch) {
  float *const scores = scratch, *const given = scratch + h.n;
  float own = 0;
  for (int64_t c = 0; c < h.dv; ++c) own += dy[c] * y[c];
  for (int64_t j = 0; j < h.n; ++j) {
    h.scores(i, j, given, scores);
    for (int64_t c = 0; c < h.dv; ++c) given[c] = dy[c] * h.v1[j * h.v_stride + c];
    for (int64_t l = 0; l < h.n; ++l) {
      const float p = static_cast<float>(std::exp(scores[l] - stat));
      float slope = -own;
      for (int64_t c = 0; c < h.dv; ++c) {
        const float v = h.v2[l * h.v_stride + c];
        slope += given[c] * v;
        d.v1[j * h.v_stride + c] += p * dy[c] * v;
        d.v2[l * h.v_stride + c] += p * given[c];
      }
      slope *= p * h.scale;
      for (int64_t a = 0; a < h.dk; ++a) {
        const float x = h.q[i * h.k_stride + a], b = h.k1[j * h.k_stride + a], e = h.k2[l * h.k_stride + a];
        d.q[i * h.k_stride + a] += slope * b * e;
        d.k1[j * h.k_stride + a] += slope * x * e;
        d.k2[l * h.k_stride + a] += slope * x * b;
      }
    }
  }
}

int64_t scratch_floats(const KroneckerOperands& x, std::span<const Segment> segments) {
  int64_t longest = 0;
  for (const Segment& s : segments) longest = std::max(longest, s.length);
  return longest + std::max(x.q.columns(), x.v1.columns());
}
int64_t pair_flops(std::span<const Segment> segments, int64_t width) {
  int64_t sum = 0;
  for (const Segment& s : segments) sum += 2 * s.length * s.length * s.length * width;
  return sum;
}

// All monomials of `numbers` variables up to a degree: each is another one times a variable, but the first, which is 1.
struct Monomials {
  struct Product {
    int64_t of, variable;
  };
  std::vector<Product> products;     // of monomials 1, 2, ...
  std::vector<double> coefficients;  // of a product of three such monomials in exp(scale sum_p q_p k1_p k2_p)

  Monomials(int64_t numbers, int64_t degree, double scale) : coefficients{1} {
    std::vector<int64_t> last = {0}, power = {0};  // the last variable of a monomial, and how often it is in there
    size_t begin = 0;
    for (int64_t g = 1; g <= degree; ++g) {
      const size_t end = coefficients.size();
      for (size_t m = begin; m < end; ++m)
        for (int64_t p = last[m]; p < numbers; ++p) {
          const int64_t times = p == last[m] ? power[m] + 1 : 1;
          products.push_back({static_cast<int64_t>(m), p});
          coefficients.push_back(coefficients[m] * scale / static_cast<double>(times));
          last.push_back(p), power.push_back(times);
        }
      begin = end;
    }
  }
  int64_t count() const { return std::ssize(coefficients); }

  Tensor of_rows(const Tensor& x, int64_t begin, int64_t rows, int64_t first) const {
    Tensor y({rows, count()});
    for (int64_t i = 0; i < rows; ++i) {
      float* const to = y.data() + i * count();
      const float* const from = x.data() + (begin + i) * x.row_size() + first;
      to[0] = 1;
      for (size_t m = 0; m < products.size(); ++m) to[m + 1] = to[products[m].of] * from[products[m].variable];
    }
    return y;
  }
};

}  // namespace

Var kronecker_attention(const KroneckerOperands& x, std::span<const Segment> segments, const KroneckerOptions& o) {
  check_operands(x, o);
  const int64_t dv = x.v1.columns() / o.heads, dk = x.q.columns() / o.heads,
                flops = pair_flops(segments, x.q.columns() + x.v1.columns());
  Tensor y({x.q.rows(), o.heads * dv}), stat({x.q.rows(), o.heads});
  count_flops(flops);
  for (const Segment& s : segments)
    each_with_scratch(s.length * o.heads, scratch_floats(x, segments), [&](int64_t item, float* scratch) {
      const int64_t i = item / o.heads, h = item % o.heads, row = s.begin + i;
      stat.data()[row * o.heads + h] =
          static_cast<float>(forward_query(Head(x, s, h, o), i, y.data() + row * y.row_size() + h * dv, scratch));
    });
  if (!recording()) return Var(std::move(y));
  const Var inputs[] = {x.q, x.k1, x.k2, x.v1, x.v2};
  return record_all(
      {y}, inputs,
      [=, kept = Pooled<Segment>(segments.begin(), segments.end())](std::span<const Tensor> dy, Gradients& into) {
        count_flops(5 * flops / 2);
        Tensor* sums[5];
        for (int operand = 0; operand < 5; ++operand) sums[operand] = &into.sum(operand);
        for (const Segment& s : kept)
          each_with_scratch(o.heads, scratch_floats(x, kept), [&](int64_t h, float* scratch) {
            const Head head(x, s, h, o);
            const auto of = [&](int operand, int64_t dim) {
              return sums[operand]->data() + s.begin * sums[operand]->row_size() + h * dim;
            };
            const TripleGradients d{of(0, dk), of(1, dk), of(2, dk), of(3, dv), of(4, dv)};
            for (int64_t i = 0; i < s.length; ++i) {
              const int64_t at = (s.begin + i) * y.row_size() + h * dv;
              backward_query(head, i, y.data() + at, dy[0].data() + at, stat.data()[(s.begin + i) * o.heads + h], d,
                             scratch);
            }
          });
      })[0];
}

Tensor kronecker_polynomial(const KroneckerOperands& x, std::span<const Segment> segments, const KroneckerOptions& o,
                            int64_t degree) {
  check_operands(x, o);
  NoGrad off;
  const int64_t dk = x.q.columns() / o.heads, dv = x.v1.columns() / o.heads;
  const Monomials monomials(dk, degree, o.scale);
  Tensor y = Tensor::zeros({x.q.rows(), o.heads * dv});
  // sum_j of monomials of keys times values, with a last column of ones in the place of values.
  const auto sums = [&](const Var& k, const Var& v, const Segment& s, int64_t h) {
    const Var ones(Tensor::full({s.length, 1}, 1)), parts[] = {columns(rows(v, s.begin, s.length), h * dv, dv), ones};
    return matmul(Var(monomials.of_rows(k.value(), s.begin, s.length, h * dk)), concat_columns(parts),
                  {.transpose_a = true});
  };
  for (const Segment& s : segments)
    for (int64_t h = 0; h < o.heads && s.length > 0; ++h) {
      Tensor both = multiply(sums(x.k1, x.v1, s, h), sums(x.k2, x.v2, s, h)).value();
      for (int64_t m = 0; m < monomials.count(); ++m)
        for (int64_t c = 0; c <= dv; ++c)
          both.data()[m * (dv + 1) + c] *= static_cast<float>(monomials.coefficients[static_cast<size_t>(m)]);
      const Tensor out =
          matmul(Var(monomials.of_rows(x.q.value(), s.begin, s.length, h * dk)), Var(std::move(both))).value();
      for (int64_t i = 0; i < s.length; ++i)
        for (int64_t c = 0; c < dv; ++c)
          y.data()[(s.begin + i) * y.row_size() + h * dv + c] =
              out.data()[i * (dv + 1) + c] / out.data()[i * (dv + 1) + dv];
    }
  return y;
}

}  // namespace sennit
