#pragma once
#include <span>

#include "mixers/mixer.h"
#include "sequence/attention.h"
#include "tensor/pooled.h"

namespace sennit::mixers {

// Hashing of directions (Reformer, Kitaev et al., arXiv:2001.04451, section 2): in each round a row x of a head has the
// bucket argmax([R x, -R x]), R normal [buckets / 2, dim], so that rows that point the same way often share one. Near
// ties are choices: Choices::blocks of side x rounds x heads groups, one bucket for each row.
class HashedKeys {
 public:
  HashedKeys(const char* mixer, int64_t buckets, int64_t rounds, int64_t dim, const Rng& rng);

  Tensor buckets(const Tensor& x, int64_t heads) const;  // [N, heads dim] -> [N, heads rounds]
  int64_t flops(int64_t rows) const;                     // of so many rows of heads
  int64_t count() const { return buckets_; }
  int64_t rounds() const { return rounds_; }

  naive::Matrix naive_buckets(const naive::Matrix& x, int64_t heads, int64_t side, int64_t position,
                              Choices* choices) const;

 private:
  int64_t buckets_, rounds_, dim_;
  Var directions_;  // [rounds buckets / 2, dim]
};

// Buckets [N, groups] of a batch as `choices` have them, or into `choices` where they have none.
void follow_buckets(Tensor& buckets, int64_t side, std::span<const Segment> segments, Choices& choices);

// Which keys each query of a batch takes: in every round the last most / rounds of those up to its own place that are
// in its bucket; and where that is fewer than `most`, the last of the others.
class KeyLists {
 public:
  // The buckets of queries [N, heads rounds] and of each source of keys.
  KeyLists(int64_t buckets, int64_t heads, int64_t most, Tensor asked, std::span<const Var> kept,
           std::span<const AttentionSegment> segments);
  // Writes them in ascending order and returns how many.
  int64_t list(size_t segment, int64_t head, int64_t query, int32_t* keys) const;

 private:
  void sort(const AttentionSegment& a, const Tensor& kept, int64_t group, int32_t* starts, int32_t* order) const;
  int64_t starts_at(size_t segment, int64_t group) const {
    return (static_cast<int64_t>(segment) * asked_.row_size() + group) * (buckets_ + 1);
  }

  int64_t buckets_, heads_, most_, rounds_;
  Tensor asked_;
  Pooled<AttentionSegment> segments_;
  Pooled<int64_t> begins_;          // of a segment's part of order_
  Pooled<int32_t> starts_, order_;  // [segments, heads rounds, buckets + 1]; [heads rounds, keys] of each segment
};
std::vector<int64_t> naive_key_list(const naive::Matrix& asked, const naive::Matrix& kept, int64_t heads, int64_t most,
                                    int64_t query, int64_t head);

}  // namespace sennit::mixers
