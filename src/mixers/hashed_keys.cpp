#include "mixers/hashed_keys.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "nn/init.h"
#include "ops/layout.h"
#include "ops/products.h"

namespace sennit::mixers {

HashedKeys::HashedKeys(const char* mixer, int64_t buckets, int64_t rounds, int64_t dim, const Rng& rng)
    : buckets_(buckets), rounds_(rounds), dim_(dim) {
  if (buckets > 1 && buckets % 2)
    fail({mixer, "an even number of buckets, or 1", fmt::format("buckets = {}", buckets)});
  if (buckets > 1) directions_ = Var(normal_init({rounds * buckets / 2, dim}, 1, rng));
}

Tensor HashedKeys::buckets(const Tensor& x, int64_t heads) const {
  Tensor all = Tensor::zeros({x.rows(), heads * rounds_});
  if (buckets_ == 1) return all;
  NoGrad off;
  const int64_t half = buckets_ / 2;
  const Tensor along = matmul(Var(x.reshape({x.rows() * heads, dim_})), directions_, {.transpose_b = true}).value();
  for (int64_t i = 0; i < all.elements(); ++i) {
    const float* row = along.data() + i * half;
    const auto [low, high] = std::minmax_element(row, row + half);
    all.data()[i] = static_cast<float>(*high >= -*low ? high - row : half + (low - row));
  }
  return all;
}

int64_t HashedKeys::flops(int64_t rows) const {
  return buckets_ == 1 ? 0 : rows * rounds_ * buckets_ * dim_;
}

naive::Matrix HashedKeys::naive_buckets(const naive::Matrix& x, int64_t heads, int64_t side, int64_t position,
                                        Choices* choices) const {
  naive::Matrix all(x.rows, heads * rounds_);
  if (buckets_ == 1) return all;
  const float* direction = directions_.value().data();
  for (int64_t t = 0; t < x.rows; ++t)
    for (int64_t c = 0; c < all.cols; ++c) {
      const int64_t h = c / rounds_, r = c % rounds_;
      std::vector<double> scores(static_cast<size_t>(buckets_));
      for (int64_t b = 0; b < buckets_; ++b)
        for (int64_t p = 0; p < dim_; ++p)
          scores[b] += (b < buckets_ / 2 ? 1 : -1) * x(t, h * dim_ + p) *
                       direction[(r * buckets_ / 2 + b % (buckets_ / 2)) * dim_ + p];
      auto best = static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
      if (choices) {
        const Choices::Query query{0, side * all.cols + c, position + t};
        best = choices->blocks.try_emplace(query, std::vector{best}).first->second.front();
        choices->scores[query] = std::move(scores);
      }
      all(t, c) = best;
    }
  return all;
}

void follow_buckets(Tensor& buckets, int64_t side, std::span<const Segment> segments, Choices& choices) {
  const int64_t groups = buckets.row_size();
  for (size_t i = 0; i < segments.size(); ++i)
    for (int64_t t = 0; t < segments[i].length; ++t)
      for (int64_t c = 0; c < groups; ++c) {
        float& mine = buckets.data()[(segments[i].begin + t) * groups + c];
        const Choices::Query query{static_cast<int64_t>(i), side * groups + c, segments[i].position + t};
        mine = static_cast<float>(
            choices.blocks.try_emplace(query, std::vector{static_cast<int32_t>(mine)}).first->second.front());
      }
}

KeyLists::KeyLists(int64_t buckets, int64_t heads, int64_t most, Tensor asked, std::span<const Var> kept,
                   std::span<const AttentionSegment> segments)
    : buckets_(buckets),
      heads_(heads),
      most_(most),
      rounds_(asked.row_size() / heads),
      asked_(std::move(asked)),
      segments_(segments.begin(), segments.end()) {
  const int64_t groups = asked_.row_size();
  int64_t keys = 0;
  for (const AttentionSegment& a : segments_) begins_.push_back(keys * groups), keys += a.keys;
  order_.resize(static_cast<size_t>(keys * groups));
  starts_.resize(segments_.size() * static_cast<size_t>(groups * (buckets_ + 1)));
  for (size_t i = 0; i < segments_.size(); ++i)
    for (int64_t c = 0; c < groups; ++c)
      sort(segments_[i], kept[segments_[i].source].value(), c, starts_.data() + starts_at(i, c),
           order_.data() + begins_[i] + c * segments_[i].keys);
}

// By bucket, and by place within one.
void KeyLists::sort(const AttentionSegment& a, const Tensor& kept, int64_t group, int32_t* starts,
                    int32_t* order) const {
  const auto bucket = [&](int64_t j) {
    return static_cast<int64_t>(kept.data()[(a.key_begin + j) * kept.row_size() + group]);
  };
  std::fill_n(starts, buckets_ + 1, 0);
  for (int64_t j = 0; j < a.keys; ++j) ++starts[bucket(j) + 1];
  for (int64_t b = 0; b < buckets_; ++b) starts[b + 1] += starts[b];
  // Filled from behind, so that the ends become the starts.
  for (int64_t b = 0; b < buckets_; ++b) starts[b] = starts[b + 1];
  for (int64_t j = a.keys - 1; j >= 0; --j) order[--starts[bucket(j)]] = static_cast<int32_t>(j);
}

int64_t KeyLists::list(size_t segment, int64_t head, int64_t query, int32_t* keys) const {
  const AttentionSegment& a = segments_[segment];
  const int64_t place = a.offset + query, target = std::min(most_, place + 1);
  int64_t n = 0;
  for (int64_t c = head * rounds_; c < (head + 1) * rounds_; ++c) {
    const auto b = static_cast<int64_t>(asked_.data()[(a.query_begin + query) * asked_.row_size() + c]);
    const int32_t *starts = starts_.data() + starts_at(segment, c),
                  *order = order_.data() + begins_[segment] + c * a.keys;
    const int32_t *first = order + starts[b], *last = std::upper_bound(first, order + starts[b + 1], place);
    n = std::copy(std::max(first, last - most_ / rounds_), last, keys + n) - keys;
  }
  std::sort(keys, keys + n);
  n = std::unique(keys, keys + n) - keys;
  int64_t known = n - 1;
  for (int64_t j = place; n < target; --j) {
    if (known >= 0 && keys[known] == j)
      --known;
    else
      keys[n++] = static_cast<int32_t>(j);
  }
  std::sort(keys, keys + n);
  return n;
}

std::vector<int64_t> naive_key_list(const naive::Matrix& asked, const naive::Matrix& kept, int64_t heads, int64_t most,
                                    int64_t query, int64_t head) {
  const int64_t rounds = kept.cols / heads, place = kept.rows - asked.rows + query;
  std::set<int64_t> keys;
  for (int64_t c = head * rounds; c < (head + 1) * rounds; ++c) {
    int64_t found = 0;
    for (int64_t j = place; j >= 0 && found < most / rounds; --j)
      if (std::llround(kept(j, c)) == std::llround(asked(query, c))) keys.insert(j), ++found;
  }
  for (int64_t j = place; j >= 0 && std::ssize(keys) < most; --j) keys.insert(j);
  return {keys.begin(), keys.end()};
}

}  // namespace sennit::mixers
