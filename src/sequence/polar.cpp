#include "sequence/polar.h"

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "ops/count.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kRowsOfThread = 16, kFlopsOfPair = 6;

// The pairs of one sequence in doubles: phases must not lose digits far from its start.
struct Pairs {
  Tensor x, stretch, rate, shift;
  Pooled<int64_t> positions;  // of the rows

  int64_t heads() const { return rate.rows(); }
  int64_t half() const { return rate.row_size(); }
  int64_t first(int64_t row, int64_t head) const { return (row * heads() + head) * 2 * half(); }

  struct Pair {
    double re, im, length, phase, cos, sin;  // of x; then where it points to
  };
  Pair at(int64_t row, int64_t head, int64_t i) const {
    const float* const from = x.data() + first(row, head) + i;
    const int64_t own = head * half() + i;
    Pair p{from[0], from[half()], 0, 0, 0, 0};
    p.length = std::hypot(p.re, p.im), p.phase = std::atan2(p.im, p.re);
    const double psi = double{stretch.data()[head]} * p.phase + static_cast<double>(positions[row]) * rate.data()[own] +
                       (shift.defined() ? shift.data()[own] : 0.0f);
    p.cos = std::cos(psi), p.sin = std::sin(psi);
    return p;
  }

  Tensor turned() const {
    Tensor y(x.shape());
    parallel_for(x.rows(), kRowsOfThread, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t h = 0; h < heads(); ++h)
          for (int64_t i = 0; i < half(); ++i) {
            const Pair p = at(t, h, i);
            float* const to = y.data() + first(t, h) + i;
            to[0] = static_cast<float>(p.length * p.cos), to[half()] = static_cast<float>(p.length * p.sin);
          }
    });
    return y;
  }

  // Sums over rows are one thread's, in order.
  void backward_head(int64_t h, const Tensor& dy, Tensor& dx, Tensor& d_stretch, Tensor& d_rate,
                     Tensor* d_shift) const {
    double stretched = 0;
    for (int64_t i = 0; i < half(); ++i) {
      double rated = 0, shifted = 0;
      for (int64_t t = 0; t < x.rows(); ++t) {
        const Pair p = at(t, h, i);
        const int64_t re = first(t, h) + i, im = re + half();
        const double d_length = dy.data()[re] * p.cos + dy.data()[im] * p.sin,
                     d_turn = dy.data()[im] * p.cos - dy.data()[re] * p.sin;  // of psi, a unit of length
        const double own = p.length > 0 ? 1 / p.length : 0, d_phase = stretch.data()[h] * d_turn;
        dx.data()[re] += static_cast<float>(own * (d_length * p.re - d_phase * p.im));
        dx.data()[im] += static_cast<float>(own * (d_length * p.im + d_phase * p.re));
        stretched += p.length * d_turn * p.phase;
        rated += p.length * d_turn * static_cast<double>(positions[t]);
        shifted += p.length * d_turn;
      }
      d_rate.data()[h * half() + i] += static_cast<float>(rated);
      if (d_shift) d_shift->data()[h * half() + i] += static_cast<float>(shifted);
    }
    d_stretch.data()[h] += static_cast<float>(stretched);
  }
};

}  // namespace

Var polar_turn(const Var& x, const PolarTurn& turn, std::span<const Segment> segments) {
  const int64_t heads = turn.rate.rows(), half = turn.rate.columns();
  SENNIT_CHECK(x.columns() == 2 * heads * half && turn.stretch.value().elements() == heads, "{} by rates {}",
               x.shape().str(), turn.rate.shape().str());
  Pairs pairs{x.value(), turn.stretch.value(), turn.rate.value(), turn.shift ? turn.shift.value() : Tensor(),
              Pooled<int64_t>(static_cast<size_t>(x.rows()))};
  for (const Segment& s : segments)
    for (int64_t t = 0; t < s.length; ++t) pairs.positions[s.begin + t] = s.position + t;
  const int64_t flops = kFlopsOfPair * x.rows() * heads * half;
  count_flops(flops);
  Tensor y = pairs.turned();
  if (!recording()) return Var(std::move(y));
  Pooled<Var> inputs = {x, turn.stretch, turn.rate};
  if (turn.shift) inputs.push_back(turn.shift);
  return record(std::move(y), inputs, [=, pairs = std::move(pairs)](std::span<const Tensor> dy, Gradients& into) {
    count_flops(2 * flops);
    Tensor &dx = into.sum(0), &d_stretch = into.sum(1), &d_rate = into.sum(2);
    Tensor* const d_shift = pairs.shift.defined() ? &into.sum(3) : nullptr;
    parallel_for(heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h) pairs.backward_head(h, dy[0], dx, d_stretch, d_rate, d_shift);
    });
  });
}

}  // namespace sennit
