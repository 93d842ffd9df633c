#include "sequence/block_divergence.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"
#include "ops/count.h"

namespace sennit {
namespace {

struct Row {
  int64_t blocks;         // that are scored
  const float* truth;     // [blocks]
  double whole;           // sum of truth
  std::vector<double> p;  // [blocks]
  double divergence = 0;
};

struct Gate {
  Tensor q, k, truth;
  AttentionSegment segment;
  int64_t groups, block;
  float scale;

  int64_t dim() const { return q.row_size() / groups; }
  const float* query(int64_t i, int64_t g) const {
    return q.data() + (segment.query_begin + i) * q.row_size() + g * dim();
  }
  const float* summary(int64_t b, int64_t g) const { return k.data() + b * k.row_size() + g * dim(); }

  Row row(int64_t i, int64_t g) const {
    Row r{std::min((segment.offset + i) / block, k.rows()), truth.data() + (i * groups + g) * truth.shape(2), 0, {}};
    double top = -INFINITY, total = 0;
    for (int64_t b = 0; b < r.blocks; ++b) {
      double s = 0;
      for (int64_t c = 0; c < dim(); ++c) s += double{query(i, g)[c]} * summary(b, g)[c];
      r.p.push_back(scale * s);
      r.whole += r.truth[b];
      top = std::max(top, r.p.back());
    }
    for (double& p : r.p) total += p = std::exp(p - top);
    for (int64_t b = 0; b < r.blocks; ++b) {
      r.p[b] /= total;
      const double t = r.whole > 0 ? r.truth[b] / r.whole : 0;
      if (t > 0) r.divergence += t * (std::log(t) - std::log(std::max(r.p[b], 1e-300)));
    }
    return r;
  }
  bool counts(const Row& r) const { return r.blocks > 0 && r.whole > 0; }
};

}  // namespace

Var block_divergence(const Var& queries, const Var& summaries, const Tensor& truth, const AttentionSegment& segment,
                     int64_t groups, int64_t block, float scale) {
  const Gate gate{queries.value(), summaries.value(), truth, segment, groups, block, scale};
  std::vector<double> sums(groups), rows(groups);
  parallel_for(groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g)
      for (int64_t i = 0; i < segment.queries; ++i) {
        const Row r = gate.row(i, g);
        if (gate.counts(r)) sums[g] += r.divergence, rows[g] += 1;
      }
  });
  double sum = 0, count = 0;
  for (int64_t g = 0; g < groups; ++g) sum += sums[g], count += rows[g];
  count_flops(2 * segment.queries * summaries.rows() * queries.columns());
  Tensor loss = Tensor::full({1}, static_cast<float>(count > 0 ? sum / count : 0));
  return record(std::move(loss), {queries, summaries}, [gate, count](std::span<const Tensor> dys, Gradients& into) {
    Tensor &dq = into.sum(0), &dk = into.sum(1);
    const int64_t dim = gate.dim();
    parallel_for(gate.groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g)
        for (int64_t i = 0; i < gate.segment.queries; ++i) {
          const Row r = gate.row(i, g);
          if (!gate.counts(r)) continue;
          float* to = dq.data() + (gate.segment.query_begin + i) * dq.row_size() + g * dim;
          for (int64_t b = 0; b < r.blocks; ++b) {
            const auto ds = static_cast<float>((r.p[b] - r.truth[b] / r.whole) * gate.scale / count) * dys[0].data()[0];
            for (int64_t c = 0; c < dim; ++c) {
              to[c] += ds * gate.summary(b, g)[c];
              dk.data()[b * dk.row_size() + g * dim + c] += ds * gate.query(i, g)[c];
            }
          }
        }
    });
  });
}

}  // namespace sennit
