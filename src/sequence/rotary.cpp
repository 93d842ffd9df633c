#include "sequence/rotary.h"

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "kernels/rotary.h"
#include "ops/count.h"
#include "tensor/pooled.h"

namespace sennit {
namespace {

constexpr int64_t kPositions = 64;  // positions a run

// Where a pair points after an angle, in double precision.
struct Direction {
  double cos, sin;
};
Direction direction(double angle) {
  return {std::cos(angle), std::sin(angle)};
}

// Angle p w of position p = run kPositions + rest by the sum of two angles: few cosines, and what a row gets hangs on its
// position alone.
PairFactors angles_of(int64_t rows, std::span<const Segment> segments, const RotaryOptions& o) {
  const int64_t pairs = o.dims / 2;
  Pooled<double> turns(static_cast<size_t>(pairs));
  for (int64_t i = 0; i < pairs; ++i)
    turns[i] = o.frequencies.empty() ? std::pow(o.base, -2.0 * static_cast<double>(i) / static_cast<double>(o.dims))
                                     : o.frequencies[i];
  const auto turned = [&](int64_t positions, int64_t pair) {
    return direction(static_cast<double>(positions) * turns[pair]);
  };
  Pooled<Direction> rests(rows < kPositions ? 0 : kPositions * pairs);  // of fewer rows each is computed where it is needed
  for (int64_t at = 0; at < std::ssize(rests); ++at) rests[at] = turned(at / pairs, at % pairs);

  PairFactors a{Tensor::zeros({rows, pairs}), Tensor::zeros({rows, pairs})};
  for (const Segment& s : segments)
    parallel_for(s.length, kPositions, [&](int64_t begin, int64_t end) {
      Pooled<Direction> wholes(static_cast<size_t>(pairs));
      int64_t run = -1;
      for (int64_t t = begin; t < end; ++t) {
        const int64_t position = s.position + t, rest = position % kPositions, row = (s.begin + t) * pairs;
        const bool next = run != position / kPositions;
        run = position / kPositions;
        for (int64_t i = 0; i < pairs; ++i) {
          if (next) wholes[i] = turned(run * kPositions, i);
          const Direction whole = wholes[i], part = rests.empty() ? turned(rest, i) : rests[rest * pairs + i];
          a.cos.data()[row + i] = static_cast<float>(o.magnitude * (whole.cos * part.cos - whole.sin * part.sin));
          a.sin.data()[row + i] = static_cast<float>(o.magnitude * (whole.sin * part.cos + whole.cos * part.sin));
        }
      }
    });
  return a;
}

void multiply_in_place(Tensor& x, std::span<const PairFactors> factors, int64_t heads, bool interleaved, bool inverse) {
  const int64_t pairs = factors[0].cos.row_size(), d = x.row_size(), run = heads / std::ssize(factors);
  count_flops(6 * x.rows() * heads * pairs);
  const auto& table = kernels::rotary();
  parallel_for(x.rows(), 16, [&](int64_t b, int64_t e) {
    for (size_t f = 0; f < factors.size(); ++f) {
      const kernels::RotaryTask task{.x = x.data() + b * d + static_cast<int64_t>(f) * run * (d / heads),
                                     .rows = e - b,
                                     .row_stride = d,
                                     .heads = run,
                                     .head_dim = d / heads,
                                     .cos = factors[f].cos.data() + b * pairs,
                                     .sin = factors[f].sin.data() + b * pairs,
                                     .pairs = pairs,
                                     .inverse = inverse};
      (interleaved ? table.interleaved : table.halves)(task);
    }
  });
}

}  // namespace

Var rotary(const Var& x, std::span<const Segment> segments, const RotaryOptions& o) {
  SENNIT_CHECK(o.frequencies.empty() || std::ssize(o.frequencies) == o.dims / 2, "{} frequencies", o.frequencies.size());
  SENNIT_CHECK(o.heads > 0 && x.columns() % o.heads == 0 && o.dims % 2 == 0 && o.dims <= x.columns() / o.heads, "rotary: {} of {} by {} heads",
               o.dims, x.shape().str(), o.heads);
  const PairFactors a = angles_of(x.rows(), segments, o);
  return multiply_pairs(x, {&a, 1}, o.heads, o.interleaved);
}

Var multiply_pairs(const Var& x, std::span<const PairFactors> factors, int64_t heads, bool interleaved) {
  SENNIT_CHECK(heads > 0 && !factors.empty() && heads % std::ssize(factors) == 0, "{} factors for {} heads",
               factors.size(), heads);
  Tensor y = x.value().clone();
  multiply_in_place(y, factors, heads, interleaved, false);
  return record(std::move(y), {x},
                [kept = Pooled<PairFactors>(factors.begin(), factors.end()), heads, interleaved](
                    std::span<const Tensor> dy, Gradients& into) {
                  Tensor dx = dy[0].clone();
                  multiply_in_place(dx, kept, heads, interleaved, true);
                  into.add(0, std::move(dx));
                });
}

}  // namespace sennit
