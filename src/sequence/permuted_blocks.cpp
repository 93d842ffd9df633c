#include "sequence/permuted_blocks.h"

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "ops/count.h"
#include "sequence/per_head.h"

namespace sennit {
namespace {

constexpr int64_t kSample = 64;  // last queries, by whose weights keys are sorted

// Means of rows [blocks, dim] taken in an order, block after block.
template <class Row>
std::vector<float> block_means(int64_t n, int64_t block, int64_t dim, Row&& row_of) {
  std::vector<float> means(static_cast<size_t>((n + block - 1) / block * dim));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t b = i / block;
    const float part = 1 / static_cast<float>(std::min(block, n - b * block));
    const float* row = row_of(i);
    for (int64_t c = 0; c < dim; ++c) means[static_cast<size_t>(b * dim + c)] += part * row[c];
  }
  return means;
}

// Scores to softmax weights, and the highest of the first `open` that hold `mass` together with the others; ascending.
std::vector<int32_t> heaviest_blocks(std::vector<double> scores, int64_t open, double mass) {
  if (mass == 1) {
    std::vector<int32_t> all(static_cast<size_t>(open));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  for (double& s : scores) s = std::exp(s - top);
  const double total = std::accumulate(scores.begin(), scores.end(), 0.0),
               held = std::accumulate(scores.begin() + open, scores.end(), 0.0);
  return heaviest(std::span(scores).first(static_cast<size_t>(open)), mass * total - held);
}

}  // namespace

PermutedBlocks::PermutedBlocks(const Tensor& q, const Tensor& keys, const AttentionSegment& segment,
                               const SparseAttentionOptions& options, const PermutedBlockSettings& settings)
    : settings_(settings), n_(segment.keys) {
  if (settings.block < 1 || settings.segment < settings.block || settings.segment % settings.block)
    fail({"permuted blocks", "segments of whole blocks",
          fmt::format("segments of {} and blocks of {}", settings.segment, settings.block)});
  if (!(settings.mass > 0 && settings.mass <= 1))
    fail({"permuted blocks", "`mass` above 0 and at most 1", fmt::format("{}", settings.mass)});
  SENNIT_CHECK(options.slopes.empty() && segment.queries == segment.keys && segment.offset == 0);
  heads_.resize(static_cast<size_t>(options.heads));
  const Operands of{q, keys, segment, options};
  each_with_scratch(options.heads, ColumnMass::scratch_floats(segment, q.row_size() / options.heads),
                    [&](int64_t h, float* scratch) {
                      Head& head = heads_[static_cast<size_t>(h)];
                      sort(head, h, of, scratch);
                      choose(head, h, of);
                    });
}

void PermutedBlocks::sort(Head& head, int64_t index, const Operands& of, float* scratch) const {
  head.order.resize(static_cast<size_t>(n_));
  std::iota(head.order.begin(), head.order.end(), 0);
  if (!settings_.sorted) return;
  std::vector<double> weights(static_cast<size_t>(n_));
  const int64_t sample = std::min(kSample, n_);
  ColumnMass(of.q, of.keys, of.segment, of.options, index).add({n_ - sample, 1, sample}, 0, weights.data(), scratch);
  for (int64_t begin = 0; begin < n_; begin += settings_.segment) {
    const auto at = [&](int64_t i) { return head.order.begin() + std::min(n_, i); };
    std::stable_sort(at(begin), at(begin + settings_.segment),
                     [&](int32_t a, int32_t b) { return weights[a] > weights[b]; });
    for (int64_t b = begin; b < std::min(n_, begin + settings_.segment); b += settings_.block)
      std::sort(at(b), at(b + settings_.block));
  }
}

int64_t PermutedBlocks::blocks_before(int64_t query_block) const {
  return query_block * settings_.block / settings_.segment * (settings_.segment / settings_.block);
}

void PermutedBlocks::choose(Head& head, int64_t index, const Operands& of) const {
  const int64_t dim = of.q.row_size() / of.options.heads, kv = index * of.options.kv_heads / of.options.heads,
                block = settings_.block, blocks = (n_ + block - 1) / block;
  const auto q = block_means(n_, block, dim, [&](int64_t i) {
    return of.q.data() + (of.segment.query_begin + i) * of.q.row_size() + index * dim;
  });
  const auto k = block_means(n_, block, dim, [&](int64_t i) {
    return of.keys.data() + (of.segment.key_begin + head.order[static_cast<size_t>(i)]) * of.keys.row_size() + kv * dim;
  });
  const auto first_token = std::find(head.order.begin(), head.order.end(), 0) - head.order.begin();
  const auto sink = static_cast<int32_t>(first_token / block);
  head.readers.resize(static_cast<size_t>(blocks));
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t open = blocks_before(i);
    if (open == 0) continue;
    std::vector<double> scores;
    for (int64_t b = 0; b <= i; ++b)  // of its own segment those that are not after it
      scores.push_back(of.options.scale *
                       std::inner_product(q.begin() + i * dim, q.begin() + (i + 1) * dim, k.begin() + b * dim, 0.0));
    count_flops(2 * (i + 1) * dim);
    std::vector<int32_t> taken = heaviest_blocks(std::move(scores), open, settings_.mass);
    if (!std::binary_search(taken.begin(), taken.end(), sink)) taken.push_back(sink);
    for (const int32_t b : taken) head.readers[static_cast<size_t>(b)].push_back(static_cast<int32_t>(i));
  }
}

double PermutedBlocks::kept() const {
  double taken = 0, all = 0;
  for (const Head& head : heads_)
    for (size_t b = 0; b < head.readers.size(); ++b) {
      taken += static_cast<double>(head.readers[b].size());
      all += static_cast<double>(blocks_before(static_cast<int64_t>(b)));
    }
  return all > 0 ? taken / all : 1;
}

TileSource PermutedBlocks::tiles() const {
  return [all = heads_, n = n_, s = settings_](size_t segment, int64_t h, TileList& tiles) {
    SENNIT_CHECK(segment == 0);
    const Head& head = all[static_cast<size_t>(h)];
    const Places q = tiles.queries();
    std::vector<int32_t> queries;
    for (size_t b = 0; b < head.readers.size(); ++b) {
      queries.clear();
      for (const int64_t i : head.readers[b])
        for (int64_t t = std::max(q.begin, i * s.block); t < std::min({q.end, n, (i + 1) * s.block}); ++t)
          queries.push_back(static_cast<int32_t>(t));
      const auto first = static_cast<int64_t>(b) * s.block;
      if (!queries.empty())
        tiles.add(std::span(head.order)
                      .subspan(b * static_cast<size_t>(s.block), static_cast<size_t>(std::min(s.block, n - first))),
                  queries, 0);
    }
    for (int64_t begin = q.begin / s.segment * s.segment; begin < q.end; begin += s.segment)
      tiles.add(Places{begin, begin + s.segment}, Places{begin, begin + s.segment}, 0);
  };
}

}  // namespace sennit
