#include "mixers/key_lists.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace sennit::mixers {

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

double chosen_bucket(const Choices::Query& query, std::vector<double> scores, Choices* choices) {
  const auto best = static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  if (!choices || scores.size() == 1) return best;
  choices->scores[query] = std::move(scores);
  return choices->blocks.try_emplace(query, std::vector{best}).first->second.front();
}

KeyLists::KeyLists(const KeyListOptions& options, Tensor asked, std::span<const Var> kept,
                   std::span<const AttentionSegment> segments)
    : options_(options),
      rounds_(asked.row_size() / options.heads),
      asked_(std::move(asked)),
      segments_(segments.begin(), segments.end()) {
  for (const Var& k : kept) kept_.push_back(k.value());
  const int64_t groups = asked_.row_size();
  int64_t keys = 0;
  for (const AttentionSegment& a : segments_) begins_.push_back(keys * groups), keys += sorted(a) ? a.keys : 0;
  if (keys == 0) return;
  order_.resize(static_cast<size_t>(keys * groups));
  starts_.resize(segments_.size() * static_cast<size_t>(groups * (options_.buckets + 1)));
  for (size_t i = 0; i < segments_.size(); ++i)
    for (int64_t c = 0; c < groups && sorted(segments_[i]); ++c)
      sort(segments_[i], c, starts_.data() + starts_at(i, c), order_.data() + begins_[i] + c * segments_[i].keys);
}

// States come from files: what is no bucket counts as the first.
int64_t KeyLists::bucket(const AttentionSegment& a, int64_t group, int64_t key) const {
  const Tensor& kept = kept_[a.source];
  const float b = kept.data()[(a.key_begin + key) * kept.row_size() + group];
  return b >= 0 && b < static_cast<float>(options_.buckets) ? static_cast<int64_t>(b) : 0;
}

// By bucket, and by place within one.
void KeyLists::sort(const AttentionSegment& a, int64_t group, int32_t* starts, int32_t* order) const {
  const int64_t count = options_.buckets;
  std::fill_n(starts, count, 0);
  for (int64_t j = 0; j < a.keys; ++j) ++starts[bucket(a, group, j)];
  for (int64_t b = 1; b < count; ++b) starts[b] += starts[b - 1];
  starts[count] = static_cast<int32_t>(a.keys);
  for (int64_t j = a.keys - 1; j >= 0; --j)
    order[--starts[bucket(a, group, j)]] = static_cast<int32_t>(j);  // ends become starts
}

int64_t KeyLists::ordered(size_t segment, int64_t head, int64_t n) const {
  const AttentionSegment& a = segments_[segment];
  return a.offset == 0 && rounds_ == 1 && sorted(a) ? order_[begins_[segment] + head * a.keys + n] : n;
}

// The last keys of a query's bucket in one round.
int64_t KeyLists::last_of(size_t segment, int64_t group, int64_t query, int32_t* keys) const {
  const AttentionSegment& a = segments_[segment];
  const int64_t place = a.offset + query, most = options_.most / rounds_;
  const auto b = static_cast<int64_t>(asked_.data()[(a.query_begin + query) * asked_.row_size() + group]);
  if (!sorted(a)) {
    int64_t n = 0;
    for (int64_t j = place; j >= 0 && n < most; --j)
      if (bucket(a, group, j) == b) keys[n++] = static_cast<int32_t>(j);
    return n;
  }
  const int32_t *starts = starts_.data() + starts_at(segment, group),
                *order = order_.data() + begins_[segment] + group * a.keys;
  const int32_t *first = order + starts[b], *last = std::upper_bound(first, order + starts[b + 1], place);
  return std::copy(std::max(first, last - most), last, keys) - keys;
}

int64_t KeyLists::list(size_t segment, int64_t head, int64_t query, int32_t* keys) const {
  const int64_t place = segments_[segment].offset + query;
  int64_t n = 0;
  for (int64_t c = head * rounds_; c < (head + 1) * rounds_; ++c) n += last_of(segment, c, query, keys + n);
  std::sort(keys, keys + n);
  n = std::unique(keys, keys + n) - keys;
  int64_t known = n - 1;
  const int64_t target = options_.fill ? std::min(options_.most, place + 1) : n;
  for (int64_t j = place; n < target; --j) {
    if (known >= 0 && keys[known] == j)
      --known;
    else
      keys[n++] = static_cast<int32_t>(j);
  }
  std::sort(keys, keys + n);
  return n;
}

std::vector<int64_t> naive_key_list(const KeyListOptions& options, const naive::Matrix& asked,
                                    const naive::Matrix& kept, int64_t query, int64_t head) {
  const int64_t rounds = kept.cols / options.heads, place = kept.rows - asked.rows + query;
  std::set<int64_t> keys;
  for (int64_t c = head * rounds; c < (head + 1) * rounds; ++c) {
    int64_t found = 0;
    for (int64_t j = place; j >= 0 && found < options.most / rounds; --j)
      if (std::llround(kept(j, c)) == std::llround(asked(query, c))) keys.insert(j), ++found;
  }
  for (int64_t j = place; options.fill && j >= 0 && std::ssize(keys) < options.most; --j) keys.insert(j);
  return {keys.begin(), keys.end()};
}

}  // namespace sennit::mixers
