#pragma once
#include <span>

#include "mixers/mixer.h"
#include "sequence/attention.h"
#include "sequence/corrected_attention.h"
#include "tensor/pooled.h"

// Keys found by buckets: what mixers share whose queries read the last keys of their own bucket. A bucket of every row
// and group is a choice (Choices::blocks), for near ties fall differently in float and in double.
namespace sennit::mixers {

// Buckets [N, groups] of a batch as `choices` have them, or into `choices` where they have none.
void follow_buckets(Tensor& buckets, int64_t side, std::span<const Segment> segments, Choices& choices);

// The bucket of the highest score, or the one chosen before.
double chosen_bucket(const Choices::Query& query, std::vector<double> scores, Choices* choices);

// Which keys each query of a batch takes: in every round the last most / rounds of those up to its own place that are
// in its bucket; and, to `fill`, where that is fewer than `most`, the last of the others.
struct KeyListOptions {
  int64_t buckets, heads, most;
  bool fill;
};
class KeyLists {
 public:
  // The buckets of queries [N, heads rounds] and of each source of keys.
  KeyLists(const KeyListOptions& options, Tensor asked, std::span<const Var> kept,
           std::span<const AttentionSegment> segments);
  // Writes them in ascending order and returns how many.
  int64_t list(size_t segment, int64_t head, int64_t query, int32_t* keys) const;
  // The n-th query by bucket, where queries are all the keys and have their buckets; else the n-th.
  int64_t ordered(size_t segment, int64_t head, int64_t n) const;

 private:
  // A few queries look back through the keys from their place on, and find theirs soon; more have them sorted.
  static bool sorted(const AttentionSegment& a) { return a.queries > 4; }
  int64_t bucket(const AttentionSegment& a, int64_t group, int64_t key) const;
  void sort(const AttentionSegment& a, int64_t group, int32_t* starts, int32_t* order) const;
  int64_t last_of(size_t segment, int64_t group, int64_t query, int32_t* keys) const;
  int64_t starts_at(size_t segment, int64_t group) const {
    return (static_cast<int64_t>(segment) * asked_.row_size() + group) * (options_.buckets + 1);
  }

  KeyListOptions options_;
  int64_t rounds_;
  Tensor asked_;
  Pooled<Tensor> kept_;
  Pooled<AttentionSegment> segments_;
  Pooled<int64_t> begins_;          // of a segment's part of order_
  Pooled<int32_t> starts_, order_;  // [segments, heads rounds, buckets + 1]; [heads rounds, keys] of each sorted one
};

// What lists of a pass say. They are held only where gradients ask again: a function of a pointer needs no memory.
template <class Lists>
KeySource key_source(const std::shared_ptr<Lists>& lists) {
  const Lists* const one = lists.get();
  if (!recording()) return [one](size_t s, int64_t h, int64_t i, int32_t* keys) { return one->list(s, h, i, keys); };
  return [lists](size_t s, int64_t h, int64_t i, int32_t* keys) { return lists->list(s, h, i, keys); };
}

std::vector<int64_t> naive_key_list(const KeyListOptions& options, const naive::Matrix& asked,
                                    const naive::Matrix& kept, int64_t query, int64_t head);

}  // namespace sennit::mixers
